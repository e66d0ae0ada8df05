"""One of several programs that work in one tree at once.

    python -m tests.posix.worker TOP NUMBER STEPS

Makes, renames, links and removes what the others make, rename, link and remove too, and
meanwhile does what must come out right whatever the others do:

    log       every worker appends lines to it
    counter   is counted up by who has made the file ``lock``, which exists once
    current   is replaced, by renaming, and so is always there and always whole
    own.N     only worker N writes it

Ends with status 0, or with what was wrong on standard error.
"""

from __future__ import annotations

import errno
import os
import random
import sys
from collections.abc import Callable

from farwatch.linux.files import AT_FDCWD, RENAME_EXCHANGE, RENAME_NOREPLACE, renameat2

NAMES = 5
LINE = 64
WHOLE = 9000
EXPECTED = frozenset(
    (
        errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR, errno.EINVAL,
        errno.ELOOP, errno.EPERM, errno.EMLINK,
    )
)  # fmt: skip
"""What a program may be told where others work: what it looks for has gone, come, or become
something else.  EINVAL: a directory into itself; EPERM: a link to a directory."""


class Worker:
    def __init__(self, top: str, number: int) -> None:
        self._top = top
        self._number = number
        self._random = random.Random(number)
        self._lines = 0
        self._counted = 0
        self._own = b""
        self._any: list[Callable[[], object]] = [
            lambda: os.mkdir(self._path()),
            lambda: os.close(os.open(self._path(), os.O_CREAT | os.O_RDWR, 0o644)),
            lambda: os.close(os.open(self._path(), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)),
            lambda: os.unlink(self._path()),
            lambda: os.rmdir(self._path()),
            lambda: os.rename(self._path(), self._path()),
            lambda: os.rename(self._path(), self._path()),
            lambda: renameat2(AT_FDCWD, self._raw(), AT_FDCWD, self._raw(), RENAME_EXCHANGE),
            lambda: renameat2(AT_FDCWD, self._raw(), AT_FDCWD, self._raw(), RENAME_NOREPLACE),
            lambda: os.link(self._path(), self._path()),
            lambda: os.symlink("x", self._path()),
            lambda: os.lstat(self._path()),
            lambda: os.listdir(self._path()),
            lambda: os.truncate(self._path(), self._random.randrange(9000)),
            lambda: os.chmod(self._path(), 0o755),
        ]

    def _path(self) -> str:
        depth = self._random.choice((1, 1, 2, 2, 3))
        names = [f"n{self._random.randrange(NAMES)}" for _ in range(depth)]
        return os.path.join(self._top, "shared", *names)

    def _raw(self) -> bytes:
        return os.fsencode(self._path())

    def run(self, steps: int) -> None:
        for step in range(steps):
            self._do(self._random.choice(self._any))
            if step % 8 == 0:
                self._append()
                self._count()
                self._replace()
                self._keep()

    @staticmethod
    def _do(call: Callable[[], object]) -> None:
        try:
            call()
        except OSError as error:
            if error.errno not in EXPECTED:
                raise

    def _append(self) -> None:
        line = f"{self._number} {self._lines}".ljust(LINE - 1, ".") + "\n"
        fd = os.open(os.path.join(self._top, "log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            assert os.write(fd, line.encode()) == LINE
        finally:
            os.close(fd)
        self._lines += 1

    def _count(self) -> None:
        lock = os.path.join(self._top, "lock")
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return
        fd = os.open(os.path.join(self._top, "counter"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            number = int(os.pread(fd, 20, 0) or b"0") + 1
            os.pwrite(fd, f"{number:020}".encode(), 0)
        finally:
            os.close(fd)
        os.unlink(lock)
        self._counted += 1

    def _replace(self) -> None:
        current = os.path.join(self._top, "current")
        with open(current, "rb") as file:
            content = file.read()
        assert len(content) == WHOLE and len(set(content)) == 1, "current is not whole"
        new = f"{current}.{self._number}"
        with open(new, "wb") as file:
            file.write(bytes([65 + self._number]) * WHOLE)
        os.rename(new, current)

    def _keep(self) -> None:
        path = os.path.join(self._top, f"own.{self._number}")
        if self._own:
            with open(path, "rb") as file:
                assert file.read() == self._own, "somebody has written what is not his"
        self._own = self._random.randbytes(self._random.randrange(1, 20_000))
        with open(path, "wb") as file:
            file.write(self._own)

    def summary(self) -> str:
        return f"{self._lines} {self._counted}"


if __name__ == "__main__":
    worker = Worker(sys.argv[1], int(sys.argv[2]))
    worker.run(int(sys.argv[3]))
    sys.stdout.write(worker.summary())
