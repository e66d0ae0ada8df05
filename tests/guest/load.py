"""A directory in which host and guest work at once, and whether all is as it should be then.

    with Scene(image, export) as scene:
        with scene.load(seed):
            ...                     # what is to do no harm
        scene.require_right()

Whoever works keeps a record of its own names; nobody else touches them.  So what is on the
disk afterwards is known, and what is more or less of it somebody else has done.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.conformance.client import Silence
from tests.conformance.stream import (
    Outcome,
    doubled,
    events_of,
    mask_of,
    wrong_last_words,
)
from tests.conformance.watcher import SENTINEL_WATCH
from tests.guest.initramfs import Image
from tests.guest.inside.worker import Worker, digests
from tests.guest.machine import Machine, Share
from tests.guest.programs import Program
from tests.guest.stage import AGENT, MNT, PYTHON, TAG, GuestClient
from tests.guest.virtiofsd import Daemon

WORKER = (PYTHON, "-m", "tests.guest.inside.worker")
DIRECTORY = "d"
SECONDS = 60.0
LONGEST_PAUSE = 0.03
"""Of the host's, seconds: an emulated guest is told of some hundred steps a second."""
OVERFLOW = "Q_OVERFLOW"


class HostWork:
    """The host's work, in a thread of its own."""

    def __init__(self, directory: Path, chance: random.Random, left: dict[str, str]) -> None:
        self.worker = Worker(str(directory), "h", chance)
        self.worker.left = left
        self._chance = chance
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._is_over.wait(self._chance.uniform(0, LONGEST_PAUSE)):
            self.worker.act()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join()


class Scene:
    """A guest with one share, and a watcher of a directory in which all work."""

    def __init__(self, image: Image, daemon: Daemon, export: Path) -> None:
        self.export = export
        self.directory = export / DIRECTORY
        self.machine = Machine(image, [Share(TAG, daemon)])
        self.host: dict[str, str] = {}
        """What the host knows to have left: name, digest."""
        self.guest: dict[str, str] = {}
        """What the guest does."""
        self.kept: dict[str, str] = {}
        """What the guest has told of while it worked."""
        self._parts = contextlib.ExitStack()
        self._watching = contextlib.ExitStack()
        self.directory.mkdir(exist_ok=True)
        (export / SENTINEL_WATCH).mkdir(exist_ok=True)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.machine)
            self.machine.mount(TAG, MNT)
            stack.enter_context(self._watching)
            self._parts = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            error.add_note(self.log())
        self._parts.close()

    def log(self) -> str:
        """What the machine and the daemon have said."""
        return self.machine.log()

    # The agent and the watcher.

    def start_agent(self, *, until_ready: bool = True) -> Program:
        agent = self.machine.start([*AGENT, MNT])
        if until_ready:
            said = agent.line(SECONDS)
            assert said == f"farwatch agent: {MNT}: events are delivered\n".encode(), (
                said,
                agent.errors(),
            )
        return agent

    def watch(self) -> None:
        """Watch the directory from now on: an agent is at work, and nobody else."""
        self._watching.close()
        self.watcher = GuestClient(self.machine, MNT, "the guest")
        self._watching.callback(self.watcher.close)
        self.watcher.ask("start", base="")
        self.watcher.ask("group", group="a")
        self.settle()
        self.before = os.listdir(self.directory)
        self.watcher.ask(
            "watch", watch=DIRECTORY, group="a", path=DIRECTORY, mask=mask_of("CHANGES")
        )

    def settle(self) -> None:
        """Return when the watcher has been told of all that has happened so far.

        Changes that were read together are told in each name's own order only: so one that is
        made when the first has been told of is waited for.
        """
        for _ in range(2):
            sentinels = self.export / SENTINEL_WATCH
            name = f"s{len(os.listdir(sentinels))}"
            (sentinels / name).touch()
            self._hear(name)

    def _hear(self, sentinel: str) -> None:
        # Behind a queue of thousands, on a busy machine.
        for _ in range(2):
            with contextlib.suppress(Silence):
                self.watcher.wait_for_sentinel(sentinel, ["a"])
                return
        self.watcher.wait_for_sentinel(sentinel, ["a"])

    # The work.

    @contextlib.contextmanager
    def load(self, seed: int) -> Iterator[None]:
        """Host and guest work; what they have left is known afterwards.

        Another seed each time: what the guest makes once and for all is named by it.
        """
        with self._guest_works(seed), self.host_works(seed):
            yield

    @contextlib.contextmanager
    def host_works(self, seed: int) -> Iterator[None]:
        with HostWork(self.directory, random.Random(f"h{seed}"), self.host) as work:
            yield
        require_nothing(work.worker.wrong, "wrong with the host's work")

    @contextlib.contextmanager
    def _guest_works(self, seed: int) -> Iterator[None]:
        with self.machine.start([*WORKER, f"{MNT}/{DIRECTORY}", str(seed)]) as program:
            said = program.line(SECONDS)
            assert said == b"works\n", (said, program.errors())
            yield
            if self.machine.is_running():
                program.end_input()
            self._take(program)

    def _take(self, program: Program) -> None:
        """What the guest's program has told; without its report if the guest was killed."""
        said = b""
        while more := program.read(SECONDS):
            said += more
        assert more is not None, "the guest's work does not end"
        for line in said.splitlines(keepends=True):
            if line.startswith(b"kept ") and line.endswith(b"\n"):
                _, name, found = line.decode().split()
                self.kept[name] = found
            elif line.startswith(b"{") and line.endswith(b"\n"):
                report = json.loads(line)
                self.guest = report["left"]
                require_nothing(report["wrong"], "wrong with the guest's work")

    # What must hold.

    def require_right(self) -> None:
        """On the disk is what host and guest have left; the guest sees and knows just that."""
        on_disk = digests(str(self.directory))
        own = {name: found for name, found in on_disk.items() if name[0] != "s"}
        require_same(own, {**self.host, **self.guest}, "the disk, and what was left on it")
        self.settle()
        seen = json.loads(self.machine.check([*WORKER, f"{MNT}/{DIRECTORY}"]))
        require_same(seen, on_disk, "the guest's view, and the disk")
        events = tuple(events_of(self.watcher.events))
        require_nothing([str(each) for each in events if OVERFLOW in each.kinds], "lost")
        outcome = Outcome(events, disk={DIRECTORY: frozenset(on_disk)})
        require_nothing(list(wrong_last_words(outcome).values()), "known wrongly")
        untold = set(on_disk) - set(self.before) - {event.name for event in events}
        require_nothing(sorted(untold), "never told")
        # Of a name that all change at once, an event may be late for the next change.
        ours = tuple(event for event in events if not event.name.startswith("s"))
        twice = doubled(outcome._replace(events=ours), {DIRECTORY: self.before})
        require_nothing(twice, "told twice")

    def require_unharmed(self) -> None:
        """The same after the end of a guest: what it did last nobody knows."""
        on_disk = digests(str(self.directory))
        host = {name: found for name, found in on_disk.items() if name[0] == "h"}
        require_same(host, self.host, "the disk, and what the host has left")
        kept = {name: found for name, found in on_disk.items() if name in self.kept}
        require_same(kept, self.kept, "the disk, and what the guest said it had made")


def require_nothing(found: list[str], what: str) -> None:
    """Raises AssertionError with all of it."""
    if found:
        raise AssertionError(f"{what}: " + "; ".join(found))


def require_same(one: dict[str, str], other: dict[str, str], what: str) -> None:
    """Raises AssertionError with what is not in both."""
    names = sorted(name for name in {**one, **other} if one.get(name) != other.get(name))
    require_nothing([f"{name}: {one.get(name)}, {other.get(name)}" for name in names], what)
