"""A mount of root's.

    SRC cloned ──> source ──> server forked ──> mounted ──> told of what is mounted below SRC

The server lives in mounts of its own, so all that it serves is opened here and handed over.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from farwatch.linux import mounts
from farwatch.mounting.checks import Paths
from farwatch.mounting.hearing import source_of
from farwatch.mounting.options import DEFAULTS, Options
from farwatch.mounting.place import Place
from farwatch.mounting.server import MAX_WRITE, Inherited, serve
from farwatch.mounting.serverprocess import ServerProcess
from farwatch.mounting.submounts import HostSubmounts
from farwatch.serving.refused import Refused
from farwatch.transports.devfuse import DevFuse

_REASONS = {
    errno.EBUSY: "it is in use as a mount already",
    errno.EPERM: "mounting is not permitted here (CAP_SYS_ADMIN is needed)",
    errno.ENODEV: "the kernel has no FUSE",
}


class RootsMount:
    """See supervisor.Mount."""

    holds_agent = False

    def __init__(self, paths: Paths, options: Options = DEFAULTS) -> None:
        self.paths = paths
        self.options = options
        self.place: Place | None = None
        self._submounts: HostSubmounts | None = None

    def make(self, server: ServerProcess) -> None:
        """See supervisor.Mount."""
        source_path, target = self.paths
        src_fd = os.open(source_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            source = source_of(self.options.events, src_fd, source_path)
            tree = self._clone(src_fd)
            attributes = self.options.over(mounts.attributes_of(src_fd))
            self._submounts = submounts = HostSubmounts(self.paths, src_fd)
        finally:
            os.close(src_fd)
        arrived = submounts.first()
        try:
            with DevFuse(MAX_WRITE) as device, source:
                inherited = Inherited(
                    device, source, tree, self.options, arrived, submounts.servers
                )
                server.fork(lambda on_ready: _serve(inherited, submounts, on_ready))
                try:
                    number = device.mount(
                        source_path, target, attributes, synchronous=self.options.synchronous
                    )
                except OSError as error:
                    reason = _REASONS.get(error.errno or 0, error.strerror or "failed")
                    raise Refused(f"cannot mount: {reason}", target) from None
                self.place = Place.numbered(number)
        except OSError as error:
            raise Refused(f"cannot open /dev/fuse: {error.strerror}") from None
        finally:
            for fd in (tree, *(each.tree for each in arrived)):
                os.close(fd)
        submounts.start(server.pid)

    def _clone(self, src_fd: int) -> int:
        """What the server works in: the mount that SRC is on, from SRC down.

        Reading through MNT changes the access times of SRC's files as is asked of MNT.
        """
        tree = mounts.open_tree(src_fd, b"", mounts.OPEN_TREE_CLONE)
        if self.options.named & mounts.MOUNT_ATTR_ATIME:
            try:
                add = self.options.attributes & mounts.MOUNT_ATTR_ATIME
                mounts.mount_setattr(tree, add, mounts.MOUNT_ATTR_ATIME, recursive=False)
            except OSError:
                os.close(tree)
                raise
        return tree

    def ready(self) -> None:
        """See supervisor.Mount."""

    def undo(self, where: bytes | None) -> None:
        """Nothing: whoever has made a mount in this way knows its place."""

    def close(self) -> None:
        """See supervisor.Mount."""
        if self._submounts is not None:
            self._submounts.close()


def _serve(inherited: Inherited, submounts: HostSubmounts, on_ready: Callable[[], None]) -> None:
    """In the server's process."""
    submounts.leave()
    serve(inherited, on_ready)
