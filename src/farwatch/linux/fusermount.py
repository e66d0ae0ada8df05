"""FUSE mounts of an ordinary user: fusermount3(1), which is set-user-id root.

It opens /dev/fuse, mounts, and hands the descriptor over a socket whose number it finds in
``_FUSE_COMMFD``.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
from collections.abc import Sequence

PACKAGE = "fuse3"
"""The package that has fusermount3, in Debian and most others."""
_SOCKET = "_FUSE_COMMFD"
_SECONDS = 20.0
_USUAL = "/usr/bin:/bin:/usr/sbin:/sbin"


class NotMounted(Exception):
    """fusermount3 has refused; its words, or that it is not there."""


def program() -> str | None:
    """Where fusermount3 is; None if it is nowhere."""
    return shutil.which("fusermount3") or shutil.which("fusermount3", path=_USUAL)


def mount(target: bytes, options: Sequence[bytes]) -> int:
    """Mounts at ``target``; the descriptor of /dev/fuse, the caller's.

    ``options`` are those of mount.fuse3(8), but for ``auto_unmount``.  Raises NotMounted.
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = _started(
                ["-o", b",".join(options), "--", target],
                {_SOCKET: str(theirs.fileno())},
                theirs.fileno(),
            )
        ours.settimeout(_SECONDS)
        try:
            _, fds, _, _ = socket.recv_fds(ours, 1, 1)
        except TimeoutError:
            process.kill()
            process.communicate()
            raise NotMounted("fusermount3 does not answer") from None
    words = process.communicate()[1]
    if not fds:
        raise NotMounted(_reason(words))
    os.set_inheritable(fds[0], False)
    return fds[0]


def unmount(target: bytes, *, lazy: bool = False) -> None:
    """Unmount what this user has mounted.  Raises OSError: EBUSY if it is in use, else EPERM.

    With ``lazy`` it is taken out of the tree now, and ends with its last user.
    """
    try:
        process = _started(["-u", *(["-z"] if lazy else []), "--", target], {}, None)
    except NotMounted as missing:
        raise OSError(errno.EPERM, str(missing)) from None
    words = _reason(process.communicate()[1])
    if process.returncode:
        is_busy = os.strerror(errno.EBUSY) in words
        raise OSError(errno.EBUSY if is_busy else errno.EPERM, words)


def escaped(value: bytes) -> bytes:
    """The value of an option, which may hold commas."""
    return value.replace(b"\\", b"\\\\").replace(b",", b"\\,")


def _started(
    arguments: Sequence[str | bytes], environment: dict[str, str], fd: int | None
) -> subprocess.Popen[bytes]:
    found = program()
    if found is None:
        raise NotMounted(f"there is no fusermount3 here; install the package {PACKAGE}")
    return subprocess.Popen(
        [found, *arguments],
        env={**os.environ, "LC_ALL": "C", **environment},
        pass_fds=() if fd is None else (fd,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd="/",
        start_new_session=True,
    )


def _reason(words: bytes) -> str:
    """The first line of its words, without its name."""
    line = words.decode(errors="replace").strip().partition("\n")[0]
    return line.partition("fusermount3: ")[2] or line or "fusermount3 says nothing"
