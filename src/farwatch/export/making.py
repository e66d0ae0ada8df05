"""Making nodes that are not opened, in the caller's name.

The client's kernel has checked the caller's permission; what is left to the
backing file system is what it does for anybody: the group and set-gid bit of a
set-gid directory, and the default ACL or the umask.  ``acting_for`` sets
the ids but leaves CAP_FSETID out, so a set-gid executable in a set-gid
directory whose group is not the caller's loses the bit, as in
``mode_strip_sgid`` of Linux 6.0, also for clients older than that.
"""

from __future__ import annotations

import errno
import os

from farwatch.events import Key
from farwatch.export.acting import acting_for
from farwatch.export.anchor import Anchor, Caller, check_caller, check_name, failure

__all__ = ["Making"]

PERMISSIONS = 0o7777


class Making(Anchor):
    """mknod, mkdir and symlink.

    Each returns the new node's key and attributes; they are read by name, so
    ENOENT means that it was made and removed again by somebody else.
    Raises OSError: EINVAL for impossible names and ids, else as the system call.
    """

    def mknod(
        self, directory: Key, name: bytes, mode: int, rdev: int, caller: Caller
    ) -> tuple[Key, os.stat_result]:
        """Make a file, FIFO, socket or device; ``mode`` holds the type, 0 for a file."""
        check_name(name)
        check_caller(caller)
        fd = self._open_directory(directory)
        try:
            with acting_for(caller):
                os.mknod(name, mode, rdev, dir_fd=fd)
            return self._entry(fd, name)
        finally:
            self._leave(fd)

    def mkdir(
        self, directory: Key, name: bytes, mode: int, caller: Caller
    ) -> tuple[Key, os.stat_result]:
        """Make a directory."""
        check_name(name)
        check_caller(caller)
        fd = self._open_directory(directory)
        try:
            with acting_for(caller):
                os.mkdir(name, mode & PERMISSIONS, dir_fd=fd)
            return self._entry(fd, name)
        finally:
            self._leave(fd)

    def symlink(
        self, directory: Key, name: bytes, target: bytes, caller: Caller
    ) -> tuple[Key, os.stat_result]:
        """Make a symbolic link; the target is kept as it is and never resolved here."""
        check_name(name)
        check_caller(caller)
        if b"\0" in target:
            raise failure(errno.EINVAL)
        fd = self._open_directory(directory)
        try:
            with acting_for(caller):
                os.symlink(target, name, dir_fd=fd)
            return self._entry(fd, name)
        finally:
            self._leave(fd)
