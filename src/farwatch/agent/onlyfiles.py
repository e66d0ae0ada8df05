"""Opens regular files and directories, and nothing else.

A device's open would open the client's device, a FIFO's would wait: what is there is looked at
through O_PATH, and what was looked at is opened.

    somebody listens for paths    in the mount that the client sees, by the directory's path
    else, or what the client has  in the clone
    mounted is in the way
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from stat import S_ISDIR, S_ISREG

from farwatch.abi.steps import KNOWN
from farwatch.agent.names import PATH, ask_again, open_name
from farwatch.agent.paths import DIRECTORY
from farwatch.linux import files

_OPEN = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_SAME_MOUNT = files.RESOLVE_NO_XDEV | files.RESOLVE_NO_SYMLINKS | files.RESOLVE_BENEATH


class OnlyFiles:
    """``visible`` opens the root of the mount that the client sees, if somebody listens there.

    Such hear only what is opened through it, and are given its paths.  ``resolve`` is as of
    ``Marks``.
    """

    def __init__(self, visible: Callable[[], int | None], resolve: int) -> None:
        self._visible = visible
        self._resolve = resolve

    def open(self, directory: int, name: bytes, mode: int) -> int:
        """What is at a name, or without one the directory itself; the caller's.

        ``directory`` is in the clone.  ``mode`` is O_RDONLY, O_WRONLY or O_RDWR, with KNOWN
        if the client's kernel is known to have a file there.  Raises OSError: ENXIO for what
        is neither a file nor a directory.
        """
        root = self._visible()
        if root is None:
            return self._open_in(directory, name, mode, self._resolve)
        try:
            visible = _same_directory(root, directory)
            try:
                return self._open_in(visible, name, mode, _SAME_MOUNT)
            finally:
                os.close(visible)
        except OSError as error:
            # The client has mounted something of its own there, which is not to be opened.
            if error.errno != errno.EXDEV:
                raise
            return self._open_in(directory, name, mode, self._resolve)
        finally:
            os.close(root)

    def _open_in(self, directory: int, name: bytes, mode: int, resolve: int) -> int:
        if mode & KNOWN:
            return open_name(directory, name, mode & os.O_ACCMODE | _OPEN | os.O_NOFOLLOW, resolve)
        path = open_name(directory, name or b".", PATH, resolve)
        try:
            return self.reopen(path, mode)
        except OSError as error:
            if error.errno == errno.ESTALE and name:
                ask_again(directory, name)
            raise
        finally:
            os.close(path)

    @staticmethod
    def reopen(path: int, mode: int) -> int:
        """What an O_PATH descriptor is of, opened; the caller's.  Raises OSError as ``open``."""
        kind = files.statx(
            path,
            flags=files.AT_EMPTY_PATH | files.AT_STATX_DONT_SYNC,
            mask=files.STATX_BASIC_STATS,
        ).mode
        if not (S_ISREG(kind) or S_ISDIR(kind)):
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        return os.open(b"/proc/self/fd/%d" % path, mode & os.O_ACCMODE | _OPEN)


def _same_directory(root: int, directory: int) -> int:
    """What ``directory`` is in the clone, in the mount whose root is ``root``.

    A handle cannot be opened there: that takes a descriptor of the mount that is
    no O_PATH one, and opening it would be an event.  So the directory's path is
    walked, through no symbolic link and no other mount, and what is found compared.
    """
    path = os.readlink(b"/proc/self/fd/%d" % directory).lstrip(b"/") or b"."
    found = files.openat2(root, path, DIRECTORY, resolve=_SAME_MOUNT)
    flags = files.AT_EMPTY_PATH | files.AT_STATX_DONT_SYNC
    if files.statx(found, flags=flags).ino != files.statx(directory, flags=flags).ino:
        os.close(found)
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
    return found
