"""An ordinary user's agent in the dummy kernel: no request of it carries a mark."""

from __future__ import annotations

import struct

from farwatch.session.session import Session
from farwatch.session.settings import Marks
from tests.session.kernel import FIRST_UID, HELLO, Agent, Kernel, in_session, settings
from tests.session.memory import MemoryDisk

OWNER = 1000


class Process:
    """A process that a test ends."""

    def __init__(self, processes: Processes, pid: int) -> None:
        self._processes = processes
        self._pid = pid
        self._birth = processes.births.get(pid, 0)
        self.closed = False

    def is_alive(self) -> bool:
        assert not self.closed
        return self._processes.births.get(self._pid, 0) == self._birth

    def close(self) -> None:
        self.closed = True


class Processes:
    """All processes: any id is one's, but those in ``no_first``."""

    def __init__(self) -> None:
        self.births: dict[int, int] = {}
        self.no_first: set[int] = set()
        self.held: list[Process] = []

    def hold(self, pid: int) -> Process:
        if pid in self.no_first:
            raise OSError(22, "not the first thread")
        self.held.append(Process(self, pid))
        return self.held[-1]

    def end(self, pid: int) -> None:
        """The process ends; its id is given to another."""
        self.births[pid] = self.births.get(pid, 0) + 1


class OrdinaryKernel(Kernel):
    """A kernel in which all are one user; what a test marks arrives without the mark."""

    def __init__(self, disk: MemoryDisk) -> None:
        self.processes = Processes()
        chosen = settings()._replace(marks=Marks.BY_THREAD, owner=OWNER)
        session = Session(
            in_session(disk), chosen, disk, lambda thread, key: None, hold=self.processes.hold
        )
        super().__init__(disk, session)

    def try_ask(
        self,
        opcode: int,
        node: int = 1,
        body: bytes = b"",
        *,
        uid: int = 0,
        gid: int = 0,
        pid: int = 100,
    ) -> bytes | None:
        if uid == 0 or FIRST_UID <= uid < FIRST_UID + 0x10000:
            uid = OWNER
        return super().try_ask(opcode, node, body, uid=uid, gid=gid, pid=pid)


class OrdinaryAgent(Agent):
    """One thread that replays; another says what is watched."""

    def register(self) -> OrdinaryAgent:
        self.hello()
        self.watch()
        return self

    def place(self, node: int, pid: int | None = None) -> tuple[int, bytes]:
        """PLACE: the directory above, and the path from there."""
        answer = self.ioctl(0xFFFF7704, struct.pack("<Q", node), pid=pid)
        assert answer is not None
        above, length = struct.unpack_from("<QI", answer)
        assert len(answer) == 12 + length
        return above, answer[12:]


def hello_if_none(agent: Agent) -> bytes | None:
    return agent.ioctl(HELLO, struct.pack("<II", 1, 1))
