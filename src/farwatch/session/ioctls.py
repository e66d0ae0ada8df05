"""IOCTL: inode flags are passed on to the file; the rest is the control channel's, or nobody's.

The client's kernel itself opens what it asks the flags of, so each comes with a file handle.
What FUSE is never asked, and so cannot be had: FIEMAP, FICLONE and FIDEDUPERANGE (the kernel
says EOPNOTSUPP; copy_file_range(2) shares blocks where the file system can).
"""

from __future__ import annotations

from collections.abc import Callable

from farwatch.abi import fuse
from farwatch.export import flags as inode_flags
from farwatch.export.nodes import Node
from farwatch.session.files import OpenDirectories, OpenFiles
from farwatch.session.request import Handler, Payload, Placed, Request


class Ioctls:
    """The handler of IOCTL.  Called with the view's lock held."""

    def __init__(
        self,
        files: OpenFiles,
        directories: OpenDirectories,
        on_change: Callable[[Node], None],
        otherwise: Handler,
    ) -> None:
        """``on_change``: a node has other flags, and so another change time, without any event.

        ``otherwise`` has all that is no file's.
        """
        self._files = files
        self._directories = directories
        self._on_change = on_change
        self._otherwise = otherwise

    def ioctl(self, request: Request) -> Payload | Placed | None:
        """IOCTL."""
        fh, flags, command, _, in_size, out_size = fuse.IOCTL_IN.unpack_from(request.body)
        if command not in inode_flags.COMMANDS:
            return self._otherwise(request)
        given = bytes(request.body[fuse.IOCTL_IN.size :][:in_size])
        if flags & fuse.IOCTL_DIR:
            node, directory = self._directories.get(fh)
            fd = directory.fileno()
        else:
            node, fd = self._files.get(fh).node, self._files.fd(fh)
        answer = inode_flags.pass_on(fd, command, given, request.uid)
        if command in inode_flags.SETTING:
            self._on_change(node)
        return fuse.IOCTL_OUT.pack(0, 0, 0, 0) + answer[:out_size]
