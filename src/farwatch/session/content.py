"""Requests about what is in files.  None of these touches what the client was told."""

from __future__ import annotations

import errno
import mmap
import os
from stat import S_ISDIR, S_ISREG

from farwatch.abi import fuse
from farwatch.abi.fuse import Opcode
from farwatch.export.tree import Export
from farwatch.session.callers import Callers
from farwatch.session.files import OpenFiles
from farwatch.session.naming import Naming
from farwatch.session.request import Handler, Payload, Placed, Request, fail, first, size_of
from farwatch.session.view import View

_COPY_LIMIT = 0x7FFF_F000


class Content:
    """Handlers of opens, reads and writes.

    ``quick`` are called with the view's lock held, ``slow`` without: they may take as
    long as the disk does.
    """

    def __init__(
        self,
        export: Export,
        view: View,
        files: OpenFiles,
        naming: Naming,
        callers: Callers,
        max_read: int,
    ) -> None:
        self._callers = callers
        self._export = export
        self._view = view
        self._files = files
        self._naming = naming
        # Of the kernel's, not of the heap: takes no memory before it is used.
        self._buffer = memoryview(mmap.mmap(-1, max_read))
        self.handlers: dict[int, Handler] = {
            Opcode.OPEN: self.open,
            Opcode.READ: self.read,
            Opcode.WRITE: self.write,
            Opcode.FSYNC: self.fsync,
            Opcode.FALLOCATE: self.fallocate,
            Opcode.LSEEK: self.lseek,
            Opcode.COPY_FILE_RANGE: self.copy_file_range,
            Opcode.SYNCFS: self.syncfs,
        }

    def open(self, request: Request) -> Payload:
        """OPEN of a regular file; the client's kernel opens the others by itself."""
        flags, open_flags = fuse.OPEN_IN.unpack_from(request.body)
        node = self._naming.node(request.node)
        if S_ISDIR(node.mode):
            raise fail(errno.EISDIR)
        if not S_ISREG(node.mode):
            raise fail(errno.ENXIO)
        kill = bool(open_flags & fuse.OPEN_KILL_SUIDGID)
        place = self._view.place_of(node)
        fd = self._export.open(node.key, flags, kill_suidgid=kill, place=place)
        try:
            opened = self._files.add(node, fd, request.pid)
        except OSError:
            os.close(fd)
            raise
        if node.believed:
            self._view.belief.opened(node, self._export.getattr_open(fd))
        return opened

    def read(self, request: Request) -> Payload | Placed:
        """READ: straight into the room for it, else the answer is good until the next one."""
        fh, offset, size, *_ = fuse.READ_IN.unpack_from(request.body)
        size = min(size, len(self._buffer))
        fd = self._files.fd(fh)
        if self._view.is_truthful:
            # This client may hear of its own reading.
            return self._export.read_at(fd, size, offset)
        if request.room is not None:
            return Placed(self._export.read_into(fd, first(request.room, size), offset))
        view = self._buffer[:size]
        return view[: self._export.read_into(fd, [view], offset)]

    def write(self, request: Request) -> Payload:
        """WRITE."""
        fh, offset, size, write_flags, _, flags, _ = fuse.WRITE_IN.unpack_from(request.body)
        if size_of(request.data) != size:
            raise fail(errno.EINVAL)
        kill = bool(write_flags & fuse.WRITE_KILL_SUIDGID)
        fd = self._files.fd(fh)
        # As the program has it by now, see F_SETFL; and pages go where they belong.
        appends = bool(flags & os.O_APPEND) and not write_flags & fuse.WRITE_CACHE
        if appends != self._files.get(fh).appends:
            self._files.get(fh).append(appends)
        groups = self._callers.groups(request)
        written = self._export.write_from(
            fd, request.data, offset, kill_suidgid=kill, groups=groups
        )
        if kill:
            self._mode_is_outdated(fh)
        return fuse.WRITE_OUT.pack(written, 0)

    def _mode_is_outdated(self, fh: int) -> None:
        """The mode may be another: the client's kernel does not look at that after a write."""
        with self._view.lock:
            self._view.belief.outdated(self._files.get(fh).node)

    def fsync(self, request: Request) -> Payload:
        """FSYNC, or fdatasync by its flag."""
        fh, flags, _ = fuse.FSYNC_IN.unpack_from(request.body)
        self._export.fsync(self._files.fd(fh), bool(flags & fuse.FSYNC_FDATASYNC))
        return b""

    def syncfs(self, request: Request) -> Payload:
        """SYNCFS: syncfs(2) of the client, for everything that it wrote."""
        self._export.syncfs()
        return b""

    def fallocate(self, request: Request) -> Payload:
        """FALLOCATE.

        Nothing says whether the caller has CAP_FSETID, without which set-id bits go: root is
        taken to have it.
        """
        fh, offset, length, mode, _ = fuse.FALLOCATE_IN.unpack_from(request.body)
        kill = request.uid != 0
        self._export.fallocate(
            self._files.fd(fh),
            mode,
            offset,
            length,
            kill_suidgid=kill,
            groups=self._callers.groups(request),
        )
        if kill:
            self._mode_is_outdated(fh)
        return b""

    def lseek(self, request: Request) -> Payload:
        """LSEEK: SEEK_DATA and SEEK_HOLE; the client does the others by itself."""
        fh, offset, whence, _ = fuse.LSEEK_IN.unpack_from(request.body)
        return fuse.LSEEK_OUT.pack(self._export.lseek(self._files.fd(fh), offset, whence))

    def copy_file_range(self, request: Request) -> Payload:
        """COPY_FILE_RANGE: within the export, without the client seeing the bytes.

        Set-id bits as for FALLOCATE.
        """
        fh_in, offset_in, _, fh_out, offset_out, length, flags = (
            fuse.COPY_FILE_RANGE_IN.unpack_from(request.body)
        )
        copied = self._export.copy_file_range(
            self._files.fd(fh_in),
            offset_in,
            self._files.fd(fh_out),
            offset_out,
            min(length, _COPY_LIMIT),
            flags,
            kill_suidgid=request.uid != 0,
            groups=self._callers.groups(request),
        )
        if request.uid:
            self._mode_is_outdated(fh_out)
        return fuse.WRITE_OUT.pack(copied, 0)
