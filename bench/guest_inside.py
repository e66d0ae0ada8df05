"""What the benchmark runs in a guest: does what it is told, and says how long that took.

    python3 guest_inside.py

A line of JSON on standard input, ``{"act": "stat", "path": "/mnt", "count": 100}``, is
answered by one on standard output: ``{"nanoseconds": 431000}``, or ``{"failed": "…"}``.  The
first line that it writes tells the physical address of a page that it keeps: ``clock`` writes
the time there for so many milliseconds, again and again (see `bench.guest_clock`).

Standard library only.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

PAGE = mmap.PAGESIZE
CHUNK = 1 << 20
SMALL = 4096
PRESENT, FRAME = 1 << 63, (1 << 55) - 1
"""Of an entry of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst)."""
SCATTER = 40503
"""Odd, so that multiples of it meet every page of a file whose size is a power of two."""
now = time.monotonic_ns


def each(act: Callable[[], object], count: int) -> int:
    """The median time of one of ``count`` times, nanoseconds."""
    taken = []
    for _ in range(count):
        started = now()
        act()
        taken.append(now() - started)
    return int(median(taken))


def fstat(path: str, count: int) -> int:
    """Of a file that is open."""
    fd = os.open(f"{path}/file", os.O_RDONLY)
    try:
        return each(lambda: os.fstat(fd), count)
    finally:
        os.close(fd)


def stat(path: str, count: int) -> int:
    """By its path."""
    name = f"{path}/file"
    return each(lambda: os.stat(name), count)


def open_close(path: str, count: int) -> int:
    """Opens for reading and closes."""
    name = f"{path}/file"
    return each(lambda: os.close(os.open(name, os.O_RDONLY)), count)


def create_unlink(path: str, count: int) -> int:
    """Creates, closes, removes."""
    name = f"{path}/made/new"

    def act() -> None:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        os.unlink(name)

    return each(act, count)


def through(path: str, flags: int, count: int) -> int:
    """A whole file, from its beginning to its end; the time of all of it."""
    fd = os.open(f"{path}/big", flags)
    try:
        size = os.fstat(fd).st_size
        with mmap.mmap(-1, CHUNK) as buffer:
            buffer[:] = b"x" * CHUNK
            act = os.pwritev if flags & os.O_WRONLY else os.preadv

            def go() -> None:
                for at in range(0, size, CHUNK):
                    if act(fd, [buffer], at) != CHUNK:
                        raise OSError(f"less than {CHUNK} bytes at {at}")

            return each(go, count)
    finally:
        os.close(fd)


def scattered(path: str, flags: int, count: int) -> int:
    """4 KiB at a time, anywhere in a file."""
    fd = os.open(f"{path}/big", flags | os.O_DIRECT)
    try:
        pages = os.fstat(fd).st_size // SMALL
        places = iter(range(1, count + 1))
        with mmap.mmap(-1, SMALL) as buffer:
            act = os.pwritev if flags & os.O_WRONLY else os.preadv
            return each(lambda: act(fd, [buffer], next(places) * SCATTER % pages * SMALL), count)
    finally:
        os.close(fd)


def git_status(path: str, count: int) -> int:
    """Of a repository in which nothing has changed."""
    command = ["git", "-C", f"{path}/tree", "status", "--porcelain"]
    return command_time(command, count, 0)


def find(path: str, count: int) -> int:
    """BusyBox's, which looks at each file; there are ``tree/expected`` lines to say."""
    with open(f"{path}/expected") as file:
        lines = int(file.read())
    return command_time(["find", f"{path}/tree/files"], count, lines)


def command_time(command: list[str], count: int, lines: int) -> int:
    """Of a command that says so many lines."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}

    def act() -> None:
        done = subprocess.run(command, check=True, capture_output=True, env=environment)
        said = done.stdout.count(b"\n")
        if said != lines:
            raise OSError(f"{command[0]} says {said} lines, not {lines}: {done.stdout[:200]!r}")

    return each(act, count)


def refresh(path: str, count: int) -> int:
    """Lets git note in its index what the files' inodes are like here."""
    command = ["git", "-C", f"{path}/tree", "status", "--porcelain"]
    return each(lambda: subprocess.run(command, check=True, capture_output=True), count)


ACTS: dict[str, Callable[[str, int], int]] = {
    "fstat": fstat,
    "stat": stat,
    "open, close": open_close,
    "create, close, unlink": create_unlink,
    "direct read": lambda path, count: through(path, os.O_RDONLY | os.O_DIRECT, count),
    "direct write": lambda path, count: through(path, os.O_WRONLY | os.O_DIRECT, count),
    "plain read": lambda path, count: through(path, os.O_RDONLY, count),
    "plain write": lambda path, count: through(path, os.O_WRONLY, count),
    "random read": lambda path, count: scattered(path, os.O_RDONLY, count),
    "random write": lambda path, count: scattered(path, os.O_WRONLY, count),
    "git status": git_status,
    "find": find,
    "refresh": refresh,
}


class Page:
    """A page of memory that stays where it is, and is found from outside."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, PAGE)
        self._memory[:8] = bytes(8)
        self._time = memoryview(self._memory)[:8].cast("Q")
        place = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        if ctypes.CDLL(None).mlock(ctypes.c_void_p(place), ctypes.c_size_t(PAGE)):
            raise OSError("a page cannot be locked")
        with open("/proc/self/pagemap", "rb") as file:
            file.seek(place // PAGE * 8)
            (entry,) = struct.unpack("=Q", file.read(8))
        if not entry & PRESENT or not entry & FRAME:
            raise OSError("a page's physical address is not told")
        self.address = (entry & FRAME) * PAGE

    def clock(self, milliseconds: int) -> int:
        """Writes the time there, for so long; returns the last."""
        page = self._time
        end = now() + milliseconds * 1_000_000
        while page[0] < end:
            page[0] = now()
        return page[0]


def main() -> None:
    """Serves until its input ends."""
    page = Page()
    say({"page": page.address})
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if asked["act"] == "clock":
                say({"nanoseconds": page.clock(asked["count"])})
            else:
                say({"nanoseconds": ACTS[asked["act"]](asked["path"], asked["count"])})
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", None) or b""
            say({"failed": f"{error} {said.decode(errors='replace')}".strip()})


def say(answer: dict[str, object]) -> None:
    """Answer with one line."""
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
