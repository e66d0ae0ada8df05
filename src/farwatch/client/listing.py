"""Directories open for listing."""

from __future__ import annotations

from farwatch.abi import fuse
from farwatch.abi.fuse import Opcode
from farwatch.client import answers
from farwatch.client.answers import Dirent
from farwatch.client.errors import ProtocolError
from farwatch.client.files import Opened
from farwatch.events import Mask

_MOST_ENTRIES = 1 << 20
"""Names in a directory; a server that tells more is taken for one that never ends."""
_LISTING = 32768
"""Bytes of one READDIR: glibc's buffer for getdents64(2)."""


class Directory(Opened):
    """A directory open for listing."""

    async def entries(self, *, plus: bool = False) -> list[Dirent]:
        """All of it, without "." and "..".

        What READDIR tells, or with ``plus`` what LOOKUP would tell of each name, too.  Each
        READDIR is one ACCESS, as each getdents64(2) is.  Raises ProtocolError for a listing
        without end.
        """
        self._check_open()
        opcode = Opcode.READDIRPLUS if plus else Opcode.READDIR
        kernel, node = self._kernel, self._dentry.inode.node
        found: list[Dirent] = []
        offset = 0
        while True:
            body = fuse.READ_IN.pack(self._handle, offset, _LISTING, 0, 0, 0, 0)
            part = list(answers.dirents(await kernel.ask(opcode, node, body), plus=plus))
            for each in part:
                if each.entry is not None:
                    kernel.inodes.untold(each.entry)
            self._raise(Mask.ACCESS)
            if not part:
                break
            found += (each for each in part if each.name not in (b".", b".."))
            if part[-1].next_offset == offset or len(found) > _MOST_ENTRIES:
                raise ProtocolError("a directory's listing does not end")
            offset = part[-1].next_offset
        kernel.inodes.flush()
        return found

    async def sync(self) -> None:
        """fsync(2)."""
        self._check_open()
        body = fuse.FSYNC_IN.pack(self._handle, 0, 0)
        await self._kernel.ask(Opcode.FSYNCDIR, self._dentry.inode.node, body)

    async def close(self) -> None:
        """close(2).  Twice is once."""
        if not self._is_closed:
            await self._release(Opcode.RELEASEDIR, Mask.CLOSE_NOWRITE)
