"""One client: the real kernel layer and fsnotify core, and a program that uses them."""

from __future__ import annotations

import errno
import struct
from collections import deque
from collections.abc import Sequence

from farwatch.abi.fsnotify import Mode, Source
from farwatch.client.files import File
from farwatch.client.fsnotify import InotifyEvent
from farwatch.client.kernel import Kernel
from farwatch.client.places import Places
from farwatch.client.protocol import Caller
from farwatch.events import Key
from farwatch.linux.files import RENAME_EXCHANGE
from tests.simulator.histories import FLAGS, Op
from tests.simulator.native import Told
from tests.simulator.side import Side
from tests.simulator.tasks import Task, Wire

_NOTICE = struct.Struct("<IiQ")
_MASKS = {"all": 0xFFF}


class Client:
    """``number`` at the server, ``name`` in what is printed."""

    def __init__(
        self, name: str, number: int, mode: Mode | None, side: Side, *, resumes: bool = False
    ) -> None:
        self.name = name
        self.number = number
        self.mode = mode
        self.side = side
        self.wire = Wire(1000 + number)
        self._caller = Caller(0, 0, 1000 + number)
        self.kernel = Kernel(self.wire.ask, self.wire.tell, mode=mode, caller=self._caller)
        self.losses = 0
        self._places = Places() if resumes else None
        if self._places is not None:
            self.kernel.on_fact = self._places.follow
        self.group = self.kernel.core.group()
        self.program: deque[Op] = deque()
        self.errors: list[tuple[Op, int]] = []
        self.watches: dict[str, int] = {}
        self.names: dict[int, str] = {}
        self.placed: list[tuple[str, str, int]] = []
        """Label, path and mask of watches that are there now, and were not accounted for."""
        self.boundaries: dict[str, int] = {}
        """How many events had been read when a watch was last placed, changed or removed."""
        self._heard: list[InotifyEvent] = []
        self._files: dict[str, File] = {}
        self._task: Task | None = None
        self._work: Task | None = None
        self._op: Op | None = None

    # The program

    @property
    def can_begin(self) -> bool:
        """Whether the program's next operation can begin."""
        return self._task is None and bool(self.program)

    @property
    def is_busy(self) -> bool:
        """Whether an operation is under way."""
        return self._task is not None or self._work is not None

    @property
    def under_way(self) -> Op | None:
        """The operation that is."""
        return self._op

    def begin(self) -> None:
        """The program's next operation."""
        self._op = self.program.popleft()
        self._task = Task(self._do(self._op))
        self._step()

    def start(self) -> None:
        """INIT, and what else there is before the first operation."""
        self._op = Op("start")
        self._task = Task(self.kernel.start())
        self._step()

    @property
    def can_work(self) -> bool:
        """Whether something that was heard has left the kernel layer something to do."""
        return self._work is None and self.kernel.has_work

    def work(self) -> None:
        """What a connection's task does when the kernel layer asks for it."""
        self._work = Task(self.kernel.catch_up())
        self._step()

    def connect_again(self, side: Side) -> None:
        """As client.Client does: another kernel layer goes on with the marks that there are."""
        places = self._places
        assert places is not None
        self.losses -= 1
        self.close()
        self._work = None
        self.side, self.wire = side, Wire(1000 + self.number)
        self.kernel.is_over = True
        self.kernel = Kernel(
            self.wire.ask,
            self.wire.tell,
            mode=self.mode,
            caller=self._caller,
            core=self.kernel.core,
        )
        self._op = Op("resume")
        self._task = Task(self._resume(places))
        self._step()

    async def _resume(self, places: Places) -> None:
        await self.kernel.start()
        await places.resume(self.kernel)
        self.kernel.on_fact = places.follow

    def _step(self) -> None:
        if self._work is not None:
            self._work.step()
            if self._work.is_over:
                self._work = None
        task = self._task
        if task is None:
            return
        task.step()
        if task.is_over:
            if task.error is not None and self._op is not None:
                self.errors.append((self._op, task.error.errno or 0))
            self._task = self._op = None

    async def _do(self, op: Op) -> None:
        kernel, args = self.kernel, op.args
        match op.name:
            case "mkdir" | "unlink" | "rmdir" | "stat" | "link" | "rename" | "symlink":
                await getattr(kernel, op.name)(*args)
            case "create":
                await kernel.mknod(args[0], 0o100644)
            case "exchange":
                await kernel.rename(args[0], args[1], flags=RENAME_EXCHANGE)
            case "chmod":
                await kernel.chmod(args[0], 0o600)
            case "truncate":
                await kernel.truncate(args[0], 3)
            case "utime":
                await kernel.utime(args[0])
            case "setxattr":
                await kernel.setxattr(args[0], "user.x", b"y")
            case "list":
                await kernel.listdir(args[0])
            case "open":
                self._files[args[0]] = await kernel.open(args[1], FLAGS[args[2]], 0o644)
            case "write":
                await self._file(args[0]).pwrite(b"content", 0)
            case "read":
                await self._file(args[0]).pread(100, 0)
            case "close":
                file = self._file(args[0])
                del self._files[args[0]]
                await file.close()
            case "watch":
                await self._watch(*args)
            case "unwatch":
                await kernel.rm_watch(self.group, self.watches.pop(args[0]))
                self._draw_line(args[0])
            case _:
                raise ValueError(f"no operation: {op}")

    def _file(self, handle: str) -> File:
        if handle not in self._files:
            raise OSError(errno.EBADF, f"{handle} was never opened")
        return self._files[handle]

    async def _watch(self, label: str, path: str, mask: str) -> None:
        wd = await (
            self.kernel.add_watch(self.group, path, mask_of(mask))
            if self._places is None
            else self._places.watch(self.kernel, self.group, path, mask_of(mask))
        )
        self.watches[label] = wd
        self.names.setdefault(wd, label)
        self.placed.append((label, path, mask_of(mask)))
        self._draw_line(label)

    def _draw_line(self, label: str) -> None:
        self._heard += self.group.read()
        self.boundaries[label] = len(self._heard)

    # What comes from the server

    def answered(self, message: bytes) -> None:
        """An answer is here: whoever waits for it goes on."""
        self.wire.answered(message)
        self._step()

    def notified(self, message: bytes) -> None:
        """A notification is here."""
        size, code, unique = _NOTICE.unpack_from(message)
        assert size == len(message)
        assert unique == 0
        self.kernel.notified(code, message[_NOTICE.size :])
        self._step()

    # What was heard

    def told(self) -> list[Told]:
        """All that the program has read, and what it can read."""
        self._heard += self.group.read()
        return [
            Told(
                self.names.get(event.wd, "?" if event.wd > 0 else ""),
                event.mask,
                event.cookie,
                event.name,
                self._by(event.source, event.client),
            )
            for event in self._heard
        ]

    def clear(self) -> None:
        """What was heard so far does not count."""
        self._heard = []
        self.group.read()
        self.boundaries.clear()

    def _by(self, source: Source, client: int) -> int | None:
        if source is Source.UNKNOWN:
            return None
        return self.number if source is Source.LOCAL else client

    def close(self) -> None:
        """It is no more."""
        for task in (self._task, self._work):
            if task is not None:
                task.close()


def mask_of(text: str) -> int:
    """A mask, as a history has it: "all", or hexadecimal."""
    return _MASKS[text] if text in _MASKS else int(text, 16)


def key_of(side: Side, node: int) -> Key | None:
    """What the server knows a node as."""
    found = side.session.view.nodes.by_id.get(node)
    return found.key if found is not None else None


def watching(paths: Sequence[str], mask: str = "all") -> list[Op]:
    """Watches of paths, each called as its path is."""
    return [Op("watch", (path, path, mask)) for path in paths]
