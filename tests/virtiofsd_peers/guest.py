"""A client kernel's requests through a virtqueue, and steps that are played with them.

Steps are data, ``(operation, arguments…)``.  Nodes are named by the path at which a step
first saw them, "/" is the root and "#7" the node id 7 itself; open files and directories
have the name that the step which opens them gives.  What a step is answered with is
normalised: nothing is left of it that two daemons may choose as they like.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from typing import Any

from farwatch.transports.vhost.frontend import Frontend
from tests.session import kernel as k

Step = tuple[Any, ...]
Answer = object
"""A name of an errno, or what was answered."""

_ROOM = (1 << 20) + 4096
_READ_IN = struct.Struct("<QQIIQII")
_SET_BY_HAND = 1_000_000_000
"""Times before this one were set by a step; others are those of the run."""
_MODE, _UID, _GID, _SIZE, _ATIME, _MTIME, _FH, _ATIME_NOW, _MTIME_NOW = (1 << n for n in range(9))
_VALID = {
    "mode": _MODE, "uid": _UID, "gid": _GID, "size": _SIZE, "atime": _ATIME, "mtime": _MTIME,
    "kill": 1 << 11, "atime_now": _ATIME | _ATIME_NOW, "mtime_now": _MTIME | _MTIME_NOW,
}  # fmt: skip
_FIELDS = ("mode", "uid", "gid", "size", "atime", "mtime", "atimensec", "mtimensec")
_FLAGS = 0x73FFFFFB & ~(1 << 16)
"""What Linux 6.18 offers (tests/abi/golden), without the writeback cache."""


class Guest(k.Kernel):
    """What ``Kernel`` asks of a session, asked of a daemon."""

    def __init__(self, frontend: Frontend) -> None:
        self._frontend = frontend
        self._unique = 0
        self.given = {}

    def try_ask(
        self,
        opcode: int,
        node: int = k.ROOT,
        body: bytes = b"",
        *,
        uid: int = 0,
        gid: int = 0,
        pid: int = 100,
    ) -> bytes | None:
        self._unique += 2
        data = k.request(opcode, node, body, unique=self._unique, uid=uid, gid=gid, pid=pid)
        room = 0 if opcode in k.WITHOUT_REPLY else _ROOM
        if opcode == k.READ and len(body) == _READ_IN.size:
            # Linux has no more room than it asks for, and the C virtiofsd goes by that.
            room = 16 + _READ_IN.unpack(body)[2]
        # As Linux does: the header, the arguments, the content.
        pieces = (40, 40) if opcode == k.WRITE else (40,)
        pending = self._frontend.submit(data, room, pieces=pieces)
        reply = self._frontend.wait(pending)
        if not room:
            return None
        number, payload = k.checked([reply], self._unique)
        if number:
            raise k.Refused(number, errno.errorcode.get(number, str(number)))
        return payload


class Player:
    """Plays steps; one for each daemon."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self._nodes = {"/": k.ROOT}
        self._handles: dict[str, int] = {}
        self._inodes: dict[int, int] = {}

    def start(self) -> None:
        """INIT, of a kernel that both can serve."""
        self.guest.init(minor=36, flags=_FLAGS, flags2=0)

    def play(self, step: Step) -> Answer:
        """What a step is answered with."""
        operation: Callable[..., Answer] = getattr(self, step[0])
        try:
            return operation(*step[1:])
        except k.Refused as refused:
            return errno.errorcode[refused.errno or 0]

    # What is normalised --------------------------------------------------------------

    def _node(self, label: str) -> int:
        return int(label[1:]) if label.startswith("#") else self._nodes[label]

    def _entry(self, entry: k.Entry, directory: str, name: str | bytes) -> Answer:
        text = os.fsdecode(name)
        known = [each for each, node in self._nodes.items() if node == entry.node]
        label = known[0] if known else f"{directory.rstrip('/')}/{text}"
        self._nodes[label] = entry.node
        return {"node": label, **self._attributes(entry.attributes, entry.node)}

    def _attributes(self, found: k.Attributes, node: int) -> dict[str, object]:
        """Not the inode number, but whether it stays; not blocks, which the disk gives later."""
        return {
            "inode stays": self._inodes.setdefault(node, found.ino) == found.ino,
            "mode": oct(found.mode),
            "links": found.nlink,
            "owner": (found.uid, found.gid),
            "device": found.rdev,
            # The disk's own business: ext4 gives directories blocks.
            "size": found.size if found.mode & 0o170000 != 0o040000 else None,
            "block": found.blksize,
            "atime": _time(found.atime, found.atimensec),
            "mtime": _time(found.mtime, found.mtimensec),
        }

    def _opened(self, opened: k.Opened, handle: str) -> Answer:
        """Flags of an open say how its pages are cached, which each daemon decides."""
        self._handles[handle] = opened.fh
        return "opened"

    # Names ---------------------------------------------------------------------------

    def lookup(self, directory: str, name: str | bytes) -> Answer:
        return self._entry(self.guest.lookup(name, self._node(directory)), directory, name)

    def mknod(
        self, directory: str, name: str | bytes, mode: int, rdev: int = 0, uid: int = 0
    ) -> Answer:
        entry = self.guest.mknod(name, mode, self._node(directory), rdev, uid=uid, gid=uid)
        return self._entry(entry, directory, name)

    def mkdir(self, directory: str, name: str | bytes, mode: int = 0o755, uid: int = 0) -> Answer:
        entry = self.guest.mkdir(name, mode, self._node(directory), uid=uid, gid=uid)
        return self._entry(entry, directory, name)

    def symlink(self, directory: str, name: str | bytes, target: bytes, uid: int = 0) -> Answer:
        entry = self.guest.symlink(name, target, self._node(directory), uid=uid, gid=uid)
        return self._entry(entry, directory, name)

    def link(self, node: str, directory: str, name: str | bytes) -> Answer:
        entry = self.guest.link(self._node(node), name, self._node(directory))
        return self._entry(entry, directory, name)

    def create(
        self, directory: str, name: str | bytes, flags: int, mode: int, handle: str, uid: int = 0
    ) -> Answer:
        entry, opened = self.guest.create(
            name, flags, 0o100000 | mode, self._node(directory), uid=uid, gid=uid
        )
        return self._entry(entry, directory, name), self._opened(opened, handle)

    def tmpfile(self, directory: str, handle: str) -> Answer:
        entry, opened = self.guest.tmpfile(self._node(directory))
        return self._entry(entry, directory, "(none)"), self._opened(opened, handle)

    def unlink(self, directory: str, name: str | bytes) -> None:
        self.guest.unlink(name, self._node(directory))

    def rmdir(self, directory: str, name: str | bytes) -> None:
        self.guest.rmdir(name, self._node(directory))

    def rename(
        self, old: str, old_name: str | bytes, new: str, new_name: str | bytes, flags: int = 0
    ) -> None:
        self.guest.rename(old_name, new_name, self._node(old), self._node(new), flags)

    def forget(self, node: str, lookups: int = 1) -> None:
        self.guest.forget(self._node(node), lookups)

    # Nodes ---------------------------------------------------------------------------

    def getattr(self, node: str, handle: str | None = None) -> Answer:
        fh = None if handle is None else self._handles[handle]
        number = self._node(node)
        return self._attributes(self.guest.getattr(number, fh), number)

    def setattr(self, node: str, changes: dict[str, int], handle: str | None = None) -> Answer:
        valid, fh = 0, 0
        for name in changes:
            valid |= _VALID.get(name, 0)
        if handle is not None:
            valid, fh = valid | _FH, self._handles[handle]
        fields = {name: value for name, value in changes.items() if name in _FIELDS}
        number = self._node(node)
        return self._attributes(self.guest.setattr(number, valid, fh, **fields), number)

    def readlink(self, node: str) -> Answer:
        return self.guest.ask(k.READLINK, self._node(node))

    def statfs(self, node: str) -> Answer:
        """Not how much is free: others use the disk as well."""
        found = struct.unpack("<5Q4I24x", self.guest.ask(k.STATFS, self._node(node)))
        return {"blocks": found[0], "bsize": found[5], "namelen": found[6], "frsize": found[7]}

    def access(self, node: str, mask: int) -> Answer:
        return self.guest.ask(k.ACCESS, self._node(node), struct.pack("<II", mask, 0))

    def setxattr(self, node: str, name: bytes, value: bytes, flags: int = 0) -> Answer:
        body = struct.pack("<II", len(value), flags) + name + b"\0" + value
        return self.guest.ask(k.SETXATTR, self._node(node), body)

    def getxattr(self, node: str, name: bytes, size: int = 4096) -> Answer:
        body = struct.pack("<II", size, 0) + name + b"\0"
        return self.guest.ask(k.GETXATTR, self._node(node), body)

    def listxattr(self, node: str, size: int = 4096) -> Answer:
        return self.guest.ask(k.LISTXATTR, self._node(node), struct.pack("<II", size, 0))

    def removexattr(self, node: str, name: bytes) -> Answer:
        return self.guest.ask(k.REMOVEXATTR, self._node(node), name + b"\0")

    # Content -------------------------------------------------------------------------

    def open(self, node: str, flags: int, handle: str, uid: int = 0) -> Answer:
        opened = self.guest.open(self._node(node), flags, uid=uid, gid=uid)
        return self._opened(opened, handle)

    def release(self, node: str, handle: str) -> None:
        self.guest.release(self._node(node), self._handles.pop(handle))

    def read(self, node: str, handle: str, size: int, offset: int = 0) -> Answer:
        return self.guest.read(self._node(node), self._handles[handle], size, offset)

    def write(self, node: str, handle: str, data: bytes, offset: int = 0) -> Answer:
        return self.guest.write(self._node(node), self._handles[handle], data, offset)

    def write_kill(self, node: str, handle: str, data: bytes) -> Answer:
        """A WRITE by somebody who must not leave set-id bits."""
        body = _READ_IN.pack(self._handles[handle], 0, len(data), 1 << 2, 0, 0, 0) + data
        return self.guest.ask(k.WRITE, self._node(node), body)

    def open_kill(self, node: str, flags: int, handle: str) -> Answer:
        """An OPEN by such."""
        opened = k.opened_of(self.guest.ask(k.OPEN, self._node(node), struct.pack("<II", flags, 1)))
        return self._opened(opened, handle)

    def write_of_size(self, node: str, handle: str, data: bytes, size: int) -> Answer:
        """A WRITE whose arguments say another size than there are bytes."""
        body = _READ_IN.pack(self._handles[handle], 0, size, 0, 0, 0, 0) + data
        return self.guest.ask(k.WRITE, self._node(node), body)

    def flush(self, node: str, handle: str) -> Answer:
        body = struct.pack("<QIIQ", self._handles[handle], 0, 0, 0)
        return self.guest.ask(k.FLUSH, self._node(node), body)

    def fsync(self, node: str, handle: str, datasync: int = 0) -> Answer:
        body = struct.pack("<QII", self._handles[handle], datasync, 0)
        return self.guest.ask(k.FSYNC, self._node(node), body)

    def fallocate(self, node: str, handle: str, offset: int, length: int, mode: int = 0) -> Answer:
        body = struct.pack("<QQQII", self._handles[handle], offset, length, mode, 0)
        return self.guest.ask(k.FALLOCATE, self._node(node), body)

    def lseek(self, node: str, handle: str, offset: int, whence: int) -> Answer:
        body = struct.pack("<QQII", self._handles[handle], offset, whence, 0)
        return struct.unpack("<Q", self.guest.ask(k.LSEEK, self._node(node), body))

    def copy(
        self,
        source: str,
        source_handle: str,
        offset: int,
        node: str,
        handle: str,
        to: int,
        size: int,
    ) -> Answer:
        body = struct.pack(
            "<7Q", self._handles[source_handle], offset, self._node(node), self._handles[handle],
            to, size, 0,
        )  # fmt: skip
        answer = self.guest.ask(k.COPY_FILE_RANGE, self._node(source), body)
        return struct.unpack("<II", answer)

    # Directories ---------------------------------------------------------------------

    def opendir(self, node: str, handle: str) -> Answer:
        return self._opened(self.guest.opendir(self._node(node)), handle)

    def releasedir(self, node: str, handle: str) -> None:
        self.guest.releasedir(self._node(node), self._handles.pop(handle))

    def fsyncdir(self, node: str, handle: str) -> Answer:
        body = struct.pack("<QII", self._handles[handle], 0, 0)
        return self.guest.ask(k.FSYNCDIR, self._node(node), body)

    def readdir(self, node: str, handle: str, plus: bool = False, size: int = 600) -> Answer:
        """The whole directory, in parts of ``size`` bytes; the order is the disk's."""
        found, offset = [], 0
        fh, number = self._handles[handle], self._node(node)
        while part := self.guest.readdir(fh, number, plus=plus, size=size, offset=offset):
            found += part
            offset = part[-1].next_offset
        return {each.name: self._dirent(each, node) for each in found}

    def _dirent(self, found: k.Dirent, directory: str) -> Answer:
        if found.entry is None or not found.entry.node:
            return found.type
        return found.type, self._entry(found.entry, directory, found.name)

    # Anything else -------------------------------------------------------------------

    def raw(self, opcode: int, node: str, body: bytes = b"") -> Answer:
        return self.guest.ask(opcode, self._node(node), body)


def _time(seconds: int, nanoseconds: int) -> object:
    return (seconds, nanoseconds) if seconds < _SET_BY_HAND else "now"
