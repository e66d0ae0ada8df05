"""A mount for one test: remote changes on one side, a watcher on the other.

The remote side acts in ``scene.src``, the client in ``scene.mnt``.  The agent can be
held back, so that the client looks at what has changed before it is told of it.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from farwatch.linux.inotify import Inotify
from tests.conformance.stream import MASKS, kinds_of
from tests.conformance.watcher import EVENT_HEADER, SENTINEL_WATCH
from tests.stage import (
    POLL_SECONDS,
    PROJECT,
    START_SECONDS,
    FarwatchStage,
    StageError,
    abort,
    fanotify_masks,
)

LAUNCHER = Path(__file__).with_name("launcher.py")
ANSWER_SECONDS = 10.0
HANG_SECONDS = 40.0
"""A test process that waits in the mount can only be freed by aborting the mount."""

CHANGES = 0xFFF & ~0x31
"""Every kind of inotify(7) but OPEN, ACCESS and CLOSE_NOWRITE."""
ALL = 0xFFF


def wait_until(condition: Callable[[], object], what: str, seconds: float = ANSWER_SECONDS) -> None:
    """Return when ``condition`` is true, or raise StageError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise StageError(f"not within {seconds:.0f} s: {what}")
        time.sleep(POLL_SECONDS)


class Watcher:
    """An inotify instance of the test's; what it hears are lines ``watch KIND name``."""

    def __init__(self, scene: Scene) -> None:
        self.inotify = Inotify()
        self.cookies: list[int] = []
        self._scene = scene
        self._names = {self.inotify.add(scene.mnt / SENTINEL_WATCH, 0x100): SENTINEL_WATCH}
        self._lines: list[str] = []
        self._sentinels: set[str] = set()

    def watch(self, name: str, path: Path | str, mask: int = CHANGES) -> None:
        """Watch a path, relative to MNT; ``name`` is what it is called in the lines."""
        self._names.setdefault(self.inotify.add(self._scene.mnt / path, mask), name)

    def told(self) -> list[str]:
        """What is heard of every change so far, identical neighbours folded.

        A sentinel may be settled in one batch with changes made before it, and be told
        before some of them; the one that follows it is not.
        """
        for _ in range(2):
            sentinel = self._scene.stage.sentinel()
            self.wait_for(partial(self._sentinels.__contains__, sentinel), sentinel)
        return self.heard()

    def told_if_not_lost(self) -> list[str]:
        """The same where events may get lost, sentinels too: until one comes through."""
        for _ in range(2):
            before = len(self._sentinels)
            deadline = time.monotonic() + ANSWER_SECONDS
            while len(self._sentinels) == before:
                if time.monotonic() > deadline:
                    raise StageError(f"no sentinel came through; so far {self._lines}")
                self._scene.stage.sentinel()
                select.select([self.inotify], [], [], 0.5)
                self._read()
        return self.heard()

    def heard(self) -> list[str]:
        """The lines so far."""
        self._read()
        lines, self._lines = self._lines, []
        return [line for index, line in enumerate(lines) if not index or lines[index - 1] != line]

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + ANSWER_SECONDS
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                raise StageError(f"{what} did not come; so far {self._lines}")
            select.select([self.inotify], [], [], min(left, 0.05))
            self._read()

    def wait_for_line(self, line: str) -> None:
        """Return when this line was heard; it stays to be read."""
        self.wait_for(lambda: line in self._lines, line)

    def _read(self) -> None:
        buffer = bytearray(1 << 16)
        while True:
            try:
                size = self.inotify.read(buffer)
            except BlockingIOError:
                return
            at = 0
            while at < size:
                wd, mask, cookie, length = EVENT_HEADER.unpack_from(buffer, at)
                at += EVENT_HEADER.size
                name = os.fsdecode(bytes(buffer[at : at + length]).rstrip(b"\0"))
                at += length
                self._take(self._names.get(wd, "*"), mask, cookie, name)

    def _take(self, watch: str, mask: int, cookie: int, name: str) -> None:
        if watch == SENTINEL_WATCH:
            self._sentinels.add(name)
            return
        if cookie:
            self.cookies.append(cookie)
        kinds = kinds_of(mask & ~MASKS["ISDIR"])
        self._lines.append(f"{watch} {kinds} {name}".rstrip())


class MutatedStage(FarwatchStage):
    """A mount made by ``launcher.py``."""

    def __init__(self, mutations: Sequence[str], furnish: Callable[[Path], object]) -> None:
        super().__init__()
        self._mutations = ",".join(mutations)
        self._furnish = furnish
        path = f"{PROJECT / 'src'}:{PROJECT}"
        self._environment = {**self._environment, "PYTHONPATH": path}

    def _start(self) -> None:
        self.mnt.mkdir(exist_ok=True)
        self._furnish(self.acting)
        self._mount()

    def _mount(self) -> None:
        command = [sys.executable, "-P", str(LAUNCHER), "mount", self._mutations]
        command += [str(self.acting), str(self.mnt), "--daemon", "--log-file", str(self._log)]
        status = self._run(command, START_SECONDS)
        if status != 0:
            raise StageError(f"{' '.join(command)}: exit status {status}\n{self.log()}")

    def start_again(self) -> None:
        """Mount SRC anew, after the mount has ended."""
        wait_until(lambda: not self.processes(), "the mount's processes have ended")
        self._mount()

    def start_beside(self, left: int) -> None:
        """Mount SRC anew and as it should be, with this process of the mount before left."""
        wait_until(lambda: self.processes() == [left], "the mount's other processes have ended")
        self._mutations = ""
        self._mount()


class Scene:
    """See the top of the file.  ``furnish`` makes what is in ``src`` before it is mounted."""

    def __init__(
        self, mutations: Sequence[str], furnish: Callable[[Path], object] = lambda _: None
    ) -> None:
        self.stage = MutatedStage(mutations, furnish)
        self._watchers: list[Watcher] = []
        self._guard = threading.Timer(HANG_SECONDS, self._abort)
        self._guard.daemon = True

    @property
    def src(self) -> Path:
        return self.stage.acting

    @property
    def mnt(self) -> Path:
        return self.stage.mnt

    @property
    def outside(self) -> Path:
        """A directory on the source's file system that is not exported."""
        return self.stage.outside

    def __enter__(self) -> Self:
        self.stage.__enter__()
        self._guard.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._guard.cancel()
        for watcher in self._watchers:
            watcher.inotify.close()
        if error is not None:
            error.add_note(self.stage.log()[-8000:])
        self.resume_agents()
        self.stage.__exit__(kind, error, trace)

    def _abort(self) -> None:
        abort(self.stage.mnt, self.stage.mnt.with_name("control"))

    def watcher(self, **watches: str) -> Watcher:
        """A watcher of these paths, by name; ``watcher(root=".")``."""
        watcher = Watcher(self)
        self._watchers.append(watcher)
        for name, path in watches.items():
            watcher.watch(name, path)
        return watcher

    # Processes -------------------------------------------------------------------

    def agents(self) -> list[int]:
        """The processes that run as agents."""
        return [pid for pid in self.stage.processes() if _is_agent(pid)]

    def agent(self) -> int:
        """The one agent."""
        wait_until(lambda: len(self.agents()) == 1, "there is one agent")
        return self.agents()[0]

    def server(self) -> int:
        """The process that owns the source."""
        return next(pid for pid in self.stage.processes() if list(fanotify_masks(pid)))

    def wait_until_marks_are_known(self) -> None:
        """Return when the server knows that there is a fanotify group in the client.

        It then asks the source for opens.
        """
        self.stage.wait_for_reading(0x20)

    def resume_agents(self) -> None:
        for pid in self.agents():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    @contextmanager
    def agent_held(self) -> Iterator[None]:
        """The agent does nothing until the block ends; changes wait for it."""
        pid = self.agent()
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: is_stopped(pid), "the agent has stopped")
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def wait_until_agent_stops(self) -> int:
        """Return when the agent has stopped itself."""
        pid = self.agent()
        wait_until(lambda: is_stopped(pid), "the agent has stopped itself")
        return pid


def is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


def _is_agent(pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"farwatch.agent" in words


def run(*command: str) -> int:
    """Run a program; its exit status."""
    return subprocess.run(command, check=False, capture_output=True, cwd="/").returncode


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    """All there is to know of what is in a tree.

    Kind, mode, owner, links, content, times and attributes.
    """
    found = {}
    for directory, directories, files in os.walk(root):
        for name in directories + files:
            path = Path(directory, name)
            if SENTINEL_WATCH in path.relative_to(root).parts:
                continue
            status = path.lstat()
            facts: tuple[object, ...] = (
                status.st_ino,
                status.st_mode,
                status.st_uid,
                status.st_gid,
                status.st_nlink,
                status.st_mtime_ns,
                tuple(os.listxattr(path, follow_symlinks=False)),
            )
            if path.is_symlink():
                facts += (os.readlink(path),)
            elif path.is_file():
                facts += (path.read_bytes(),)
            found[str(path.relative_to(root))] = facts
    return found
