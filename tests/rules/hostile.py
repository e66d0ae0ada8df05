"""Whoever takes the agent's mark without being asked to: tries all that could do harm.

    python hostile.py MNT SEQUENCE [hello]

Acts in MNT with the mark of a replay, after HELLO if so asked; the names are those of
``furnish``.  Prints a line of what has succeeded; any line but an empty one is a fault.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from farwatch.abi.control import FIRST_UID
from farwatch.linux import files
from farwatch.linux.credentials import (
    CAP_CHOWN,
    CAP_DAC_OVERRIDE,
    CAP_FOWNER,
    CAP_FSETID,
    CAP_MKNOD,
    raise_effective,
    setfsuid,
)

_CAPABILITIES = CAP_CHOWN | CAP_DAC_OVERRIDE | CAP_FOWNER | CAP_FSETID | CAP_MKNOD
_RDWR = os.O_RDWR | os.O_CLOEXEC
LATE = 2_000_000_000_000_000_000


def furnish(src: Path) -> None:
    """What the acts below are tried on."""
    furnish_files(src)
    os.setxattr(src / "file", "user.kept", b"value")
    (src / "empty").mkdir()
    (src / "full").mkdir()
    (src / "full" / "inner").write_text("inner")
    (src / "symlink").symlink_to("file")


def furnish_files(src: Path) -> None:
    for name in ("file", "other", "third", "x"):
        (src / name).write_text(f"content of {name}")


def _at(root: int, name: str) -> str:
    """Through the descriptor: the agent's own mount has no path."""
    return f"/proc/self/fd/{root}/{name}"


def _open(root: int, name: str, flags: int) -> None:
    os.close(os.open(name, flags | os.O_CLOEXEC, 0o600, dir_fd=root))


def _write(root: int, name: str) -> None:
    fd = os.open(name, _RDWR, dir_fd=root)
    try:
        os.pwrite(fd, b"hostile", 0)
    finally:
        os.close(fd)


def _allocate(root: int) -> None:
    fd = os.open("third", _RDWR, dir_fd=root)
    try:
        os.ftruncate(fd, 3)
    finally:
        os.close(fd)


def _two(call: Callable[..., None], root: int, old: str, new: str) -> None:
    call(old, new, src_dir_fd=root, dst_dir_fd=root)


ACTS: dict[str, Callable[[int], None]] = {
    "chmod": lambda root: os.chmod("file", 0o777, dir_fd=root),
    "chown": lambda root: os.chown("file", 1, 1, dir_fd=root),
    "times": lambda root: os.utime("file", ns=(LATE, LATE), dir_fd=root),
    "times of a directory": lambda root: os.utime("full", ns=(LATE, LATE), dir_fd=root),
    "truncate": lambda root: os.truncate(_at(root, "file"), 1),
    "set an attribute": lambda root: os.setxattr(_at(root, "file"), "user.new", b"x"),
    "remove an attribute": lambda root: os.removexattr(_at(root, "file"), "user.kept"),
    "write": lambda root: _write(root, "other"),
    "shorten what is open": _allocate,
    "open and truncate": lambda root: _open(root, "third", os.O_WRONLY | os.O_TRUNC),
    "create": lambda root: _open(root, "created", os.O_WRONLY | os.O_CREAT | os.O_EXCL),
    "mknod": lambda root: os.mknod("made", 0o100600, dir_fd=root),
    "mkfifo": lambda root: os.mknod("fifo", 0o010600, dir_fd=root),
    "mkdir": lambda root: os.mkdir("directory", dir_fd=root),
    "symlink": lambda root: os.symlink("x", "points", dir_fd=root),
    "link": lambda root: _two(os.link, root, "file", "linked"),
    "exchange": lambda root: files.renameat2(root, b"file", root, b"other", 2),
    "rename": lambda root: _two(os.rename, root, "file", "renamed"),
    "rename over": lambda root: _two(os.rename, root, "other", "third"),
    "rename a directory": lambda root: _two(os.rename, root, "full", "moved"),
    "unlink": lambda root: os.unlink("symlink", dir_fd=root),
    "unlink a file": lambda root: os.unlink("third", dir_fd=root),
    "rmdir": lambda root: os.rmdir("empty", dir_fd=root),
}


def attempt_all(root: int) -> dict[str, int]:
    """Try everything; the errno of each act, 0 where it succeeded."""
    outcome = {}
    for name, act in ACTS.items():
        try:
            act(root)
        except OSError as error:
            outcome[name] = error.errno or -1
        else:
            outcome[name] = 0
    return outcome


def report(outcome: dict[str, int]) -> str:
    """What has succeeded."""
    return ", ".join(name for name, number in outcome.items() if not number)


def main(path: str, sequence: str, *options: str) -> None:
    from farwatch.agent.channel import Channel

    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    for name in (*os.listdir(root), "full/inner"):
        # Known to the kernel, so that nothing hangs on a look-up.
        with suppress(OSError):
            os.stat(name, dir_fd=root, follow_symlinks=False)
    if "hello" in options:
        Channel(root).hello()
    setfsuid(FIRST_UID + int(sequence))
    raise_effective(_CAPABILITIES)
    sys.stdout.write(report(attempt_all(root)) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
