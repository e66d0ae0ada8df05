"""The shared directory as a server gets it: a mount of its own, and what changes in it."""

from __future__ import annotations

import errno
import os

from farwatch.linux import mounts
from farwatch.linux.descriptors import Closable
from farwatch.serving.confinement import Unservable, confine
from farwatch.serving.refused import Refused
from farwatch.sources.fanotify import FanotifySource, NoSource


class SharedDirectory(Closable):
    """A mount of a directory that nobody else has, without submounts.  Owns it.

        made ──enter──> entered: ``watch`` and ``open`` as often as there are front ends

    Made in the host's mounts, where its path means something; entered by the process that
    then serves it.
    """

    def __init__(self, path: str, *, readonly: bool) -> None:
        """Raises Refused, also if the directory's changes cannot be watched."""
        self.path = path
        self._fd = -1
        fd = _open_directory(path)
        try:
            FanotifySource.open(fd).close()
            self._tree = mounts.open_tree(fd, b"", mounts.OPEN_TREE_CLONE)
        except NoSource as error:
            raise Refused(f"changes there cannot be watched: {error.strerror}", path) from None
        except OSError as error:
            raise Refused(f"cannot be shared: {error.strerror}", path) from None
        finally:
            os.close(fd)
        if readonly:
            mounts.mount_setattr(self._tree, mounts.MOUNT_ATTR_RDONLY, 0, recursive=False)

    def enter(self, *, is_confined: bool) -> None:
        """Open it for exports; confined, it is all that is left of the host.

        Raises Refused.
        """
        if is_confined:
            tree, self._tree = self._tree, -1
            try:
                self._fd = confine(tree)
            except Unservable as error:
                raise Refused(str(error), remedy="or give --sandbox=none") from None
        else:
            # The mount is attached nowhere, and goes with the tree's descriptor.
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            self._fd = os.open(".", flags, dir_fd=self._tree)

    def watch(self, *, silence: bool = True) -> FanotifySource:
        """What changes in it, by whomever; the caller's.  Raises Refused.

        With ``silence``, content that passes through this mount is left out: for a server
        of one client, who alone has it.
        """
        try:
            source = FanotifySource.open(self._fd)
        except NoSource as error:
            raise Refused(f"changes cannot be watched: {error.strerror}", self.path) from None
        if silence:
            source.silence(self._fd)
        return source

    def open(self) -> int:
        """A descriptor of it, the caller's, once it was entered."""
        return os.dup(self._fd)

    def close(self) -> None:
        """Let it go."""
        for fd in (self._fd, self._tree):
            if fd >= 0:
                os.close(fd)
        self._fd = self._tree = -1


def _open_directory(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        number = (error.errno if isinstance(error, OSError) else None) or errno.ENOENT
        reason = {
            errno.ENOENT: "no such directory",
            errno.ENOTDIR: "not a directory",
        }.get(number, os.strerror(number))
        raise Refused(reason, path) from None
