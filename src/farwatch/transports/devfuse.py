"""Requests and replies through /dev/fuse.

One read(2) gives one whole request, one writev(2) takes one whole reply or notification
(fs/fuse/dev.c).  The buffer for reading must hold the largest WRITE and its headers, or
the kernel refuses to give anything.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Sequence
from stat import S_IFDIR

from farwatch.linux import mounts
from farwatch.linux.descriptors import Closable
from farwatch.session.request import Payload

log = logging.getLogger(__name__)

FSTYPE = b"fuse.farwatch"
_DEVICE = "/dev/fuse"
_HEADERS = 4096
_LONGEST_NAME = 255
"""Bytes of a string that fsconfig(2) takes (fs/fsopen.c)."""
_NOTHING_YET = frozenset((errno.EINTR, errno.EAGAIN, errno.ENOENT))
"""ENOENT: the request was interrupted before it could be read."""
_GONE = frozenset((errno.ENODEV, errno.ECONNABORTED, errno.EBADF))
"""ENODEV: the file system was unmounted; ECONNABORTED: its connection was aborted."""


class DevFuse(Closable):
    """A connection to the kernel.  Owns the descriptor of /dev/fuse."""

    def __init__(self, max_write: int, fd: int = -1) -> None:
        """Opens /dev/fuse, or owns ``fd``, which is open on it.  Raises OSError."""
        self._fd = fd if fd >= 0 else os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
        self._buffer = memoryview(bytearray(max_write + _HEADERS))

    def fileno(self) -> int:
        """The descriptor, which stays owned here."""
        return self._fd

    def mount(
        self, source: bytes, target: bytes, attributes: int = 0, *, synchronous: bool = False
    ) -> mounts.MountId:
        """Mounts this connection at ``target``; the mount's ids.  Raises OSError as mount(2) does.

        Everybody may use it (``allow_other``), and the kernel checks permissions
        (``default_permissions``).  ``attributes`` (MOUNT_ATTR_… bits) are those of the mount
        alone: a file system that was read-only itself would refuse replays.  ``source`` is its
        name in /proc/mounts, of which the kernel takes 255 bytes.
        """
        fstype, _, subtype = FSTYPE.partition(b".")
        if len(source) > _LONGEST_NAME:
            source = b"..." + source[3 - _LONGEST_NAME :]
        options: dict[bytes, bytes | None] = {
            b"source": source,
            b"subtype": subtype,
            b"fd": b"%d" % self._fd,
            b"rootmode": b"%o" % S_IFDIR,
            b"user_id": b"0",
            b"group_id": b"0",
            b"allow_other": None,
            b"default_permissions": None,
        }
        if synchronous:
            options[b"sync"] = None
        mount = mounts.fsmount(fstype, options, attributes)
        try:
            mounts.move_mount(mount, target)
            return mounts.statx_mount_ids(mount)
        finally:
            os.close(mount)

    def serve(
        self,
        receive: Callable[[memoryview], Sequence[Payload] | None],
        after: Callable[[], None],
    ) -> None:
        """Answers requests until the file system is gone.

        ``receive`` answers one request; ``after`` is called after each.
        """
        fd, buffer = self._fd, self._buffer
        buffers = [buffer]
        readv = os.readv
        while True:
            try:
                size = readv(fd, buffers)
            except OSError as error:
                if error.errno in _NOTHING_YET:
                    continue
                if error.errno in _GONE:
                    return
                raise
            reply = receive(buffer[:size])
            if reply is not None:
                self.send(reply)
            after()

    def send(self, reply: Sequence[Payload]) -> None:
        """Writes one reply.  From any thread.

        A reply that nobody waits for any more (ENOENT) is dropped.
        """
        try:
            os.writev(self._fd, reply)
        except OSError as error:
            if error.errno == errno.ENOENT or error.errno in _GONE:
                return
            log.error("the kernel refused a reply: %s", error.strerror)

    def close(self) -> None:
        """Close the descriptor: with its last copy the connection ends."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
