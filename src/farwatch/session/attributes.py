"""Requests about nodes: attributes, extended attributes, forgetting."""

from __future__ import annotations

import errno

from farwatch.abi import fuse
from farwatch.abi.fuse import Opcode, Valid
from farwatch.export.nodes import Node
from farwatch.export.tree import NOW, OMIT, Caller, Export, SetAttr
from farwatch.session.callers import Callers
from farwatch.session.files import OpenFiles
from farwatch.session.inodes import as_statx
from farwatch.session.naming import Naming
from farwatch.session.negotiation import Agreed
from farwatch.session.request import Handler, Payload, Request, fail, names
from farwatch.session.view import View

_BILLION = 1_000_000_000
_XATTR_MAX = 1 << 16
_I64 = 1 << 63
_TRUSTED = b"trusted."
_ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")
"""Access control lists (acl(5))."""
_NO_ACLS = (errno.EOPNOTSUPP, errno.ESTALE)


class Attributes:
    """Handlers of the requests that read or change what a node is."""

    def __init__(
        self,
        export: Export,
        view: View,
        files: OpenFiles,
        naming: Naming,
        callers: Callers,
        agreed: Agreed,
    ) -> None:
        self._callers = callers
        self._is_long = agreed.long_setxattr
        self._tells_acls = agreed.posix_acl
        self._export = export
        self._view = view
        self._nodes = view.nodes
        self._files = files
        self._naming = naming
        self.handlers: dict[int, Handler] = {
            Opcode.FORGET: self.forget,
            Opcode.BATCH_FORGET: self.batch_forget,
            Opcode.GETATTR: self.getattr,
            Opcode.STATX: self.statx,
            Opcode.SETATTR: self.setattr,
            Opcode.READLINK: self.readlink,
            Opcode.STATFS: self.statfs,
        }
        self.xattr_handlers: dict[int, Handler] = {
            Opcode.GETXATTR: self.getxattr,
            Opcode.LISTXATTR: self.listxattr,
            Opcode.SETXATTR: self.setxattr,
            Opcode.REMOVEXATTR: self.removexattr,
        }

    def forget(self, request: Request) -> None:
        """FORGET: has no answer."""
        (lookups,) = fuse.FORGET_IN.unpack_from(request.body)
        self._nodes.forget(request.node, lookups)

    def batch_forget(self, request: Request) -> None:
        """BATCH_FORGET: has no answer."""
        count, _ = fuse.BATCH_FORGET_IN.unpack_from(request.body)
        offset = fuse.BATCH_FORGET_IN.size
        size = fuse.FORGET_ONE.size
        for index in range(min(count, (len(request.body) - offset) // size)):
            self._nodes.forget(*fuse.FORGET_ONE.unpack_from(request.body, offset + index * size))

    def getattr(self, request: Request) -> Payload:
        """GETATTR: by file handle while the node is open, else by node."""
        flags, _, fh = fuse.GETATTR_IN.unpack_from(request.body)
        node = self._asked_of(request)
        return self._attr_out(node, self._present(node, flags, fh))

    def statx(self, request: Request) -> Payload:
        """STATX: the same, and the time of birth; asked by who wants to know that."""
        flags, _, fh, _, _ = fuse.STATX_IN.unpack_from(request.body)
        node = self._asked_of(request)
        attributes = self._present(node, flags, fh)
        birth = self._export.birth_time(node.key) if node.key else None
        head = fuse.STATX_OUT_HEAD.pack(self._view.attr_seconds(node), 0, 0)
        return head + as_statx(attributes, birth)

    def _asked_of(self, request: Request) -> Node:
        if request.node == self._view.hidden.id:
            return self._view.hidden
        return self._naming.node(request.node)

    def _present(self, node: Node, flags: int, fh: int) -> bytes:
        if node is self._view.hidden:
            return self._view.last_attributes(node)
        if flags & fuse.GETATTR_FH and not self._files.is_replay(fh):
            return self._view.attributes(node, self._export.getattr_open(self._files.fd(fh)))
        return self._naming.attributes(node)

    def setattr(self, request: Request) -> Payload:
        """SETATTR: chmod, chown, truncate, utimensat."""
        (
            valid, _, fh, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, uid, gid, _,
        ) = fuse.SETATTR_IN.unpack_from(request.body)  # fmt: skip
        node = self._naming.node(request.node)
        fd = self._files.fd(fh) if valid & Valid.FH else None
        changes = SetAttr(
            mode=mode & 0o7777 if valid & Valid.MODE else None,
            uid=uid if valid & Valid.UID else None,
            gid=gid if valid & Valid.GID else None,
            size=size if valid & Valid.SIZE else None,
            atime_ns=_time(valid, Valid.ATIME, Valid.ATIME_NOW, atime, atime_ns),
            mtime_ns=_time(valid, Valid.MTIME, Valid.MTIME_NOW, mtime, mtime_ns),
            kill_suidgid=bool(valid & Valid.KILL_SUIDGID),
        )
        place = self._view.place_of(node)
        status = self._export.setattr(
            node.key,
            fd,
            changes,
            caller(request),
            place=place,
            groups=self._callers.groups(request),
        )
        return self._attr_out(node, self._view.attributes(node, status))

    def _attr_out(self, node: Node, attributes: bytes) -> bytes:
        return fuse.ATTR_OUT_HEAD.pack(self._view.attr_seconds(node), 0, 0) + attributes

    def readlink(self, request: Request) -> Payload:
        """READLINK."""
        return self._export.readlink(self._naming.node(request.node).key)

    def statfs(self, request: Request) -> Payload:
        """STATFS."""
        sizes = self._export.statfs(self._naming.node(request.node).key)
        return fuse.STATFS_OUT.pack(
            sizes.f_blocks,
            sizes.f_bfree,
            sizes.f_bavail,
            sizes.f_files,
            sizes.f_ffree,
            sizes.f_bsize,
            sizes.f_namemax,
            sizes.f_frsize,
            0,
        )

    # Extended attributes ---------------------------------------------------------

    def getxattr(self, request: Request) -> Payload:
        """GETXATTR: the value, or with a size of 0 how long it is."""
        size, _ = fuse.GETXATTR_IN.unpack_from(request.body)
        name = names(request.body, fuse.GETXATTR_IN.size, 1)[0]
        if request.node == self._view.hidden.id:
            raise fail(errno.ENODATA)
        node = self._naming.node(request.node)
        try:
            return _sized(self._export.getxattr(node.key, name), size)
        except OSError as error:
            # The client's kernel asks this to check access: an error would refuse it.  That
            # goes for what is gone as well, of which there is something to be replayed.
            if error.errno in _NO_ACLS and self._tells_acls and name in _ACLS:
                raise fail(errno.ENODATA) from None
            raise

    def listxattr(self, request: Request) -> Payload:
        """LISTXATTR: the names, each with its NUL, or how long they are."""
        size, _ = fuse.GETXATTR_IN.unpack_from(request.body)
        found = self._export.listxattr(self._naming.node(request.node).key)
        if request.uid:
            # CAP_SYS_ADMIN sees these; who has it is not told (xattr(7)).
            found = [name for name in found if not name.startswith(_TRUSTED)]
        return _sized(b"".join(name + b"\0" for name in found), size)

    def setxattr(self, request: Request) -> Payload:
        """SETXATTR: name, then value."""
        kills = 0
        if self._is_long:
            size, flags, kills, _ = fuse.SETXATTR_IN.unpack_from(request.body)
            rest = bytes(request.body[fuse.SETXATTR_IN.size :])
        else:
            size, flags = fuse.SETXATTR_IN_COMPAT.unpack_from(request.body)
            rest = bytes(request.body[fuse.SETXATTR_IN_COMPAT.size :])
        name, end, value = rest.partition(b"\0")
        if not end or len(value) != size or size > _XATTR_MAX:
            raise fail(errno.EINVAL)
        node = self._naming.node(request.node)
        place = self._view.place_of(node)
        self._export.setxattr(
            node.key,
            name,
            value,
            flags,
            caller(request),
            place=place,
            kill_sgid=bool(kills & fuse.SETXATTR_KILL_SGID),
        )
        self._view.belief.outdated(node)
        return b""

    def removexattr(self, request: Request) -> Payload:
        """REMOVEXATTR."""
        name = names(request.body, 0, 1)[0]
        node = self._naming.node(request.node)
        self._export.removexattr(node.key, name, place=self._view.place_of(node))
        self._view.belief.outdated(node)
        return b""


def caller(request: Request) -> Caller:
    """On whose behalf the client's kernel asks."""
    return Caller(request.uid, request.gid, request.pid)


def _time(valid: int, given: Valid, now: Valid, seconds: int, nanoseconds: int) -> int:
    if valid & now:
        return NOW
    if not valid & given:
        return OMIT
    if nanoseconds >= _BILLION:
        raise fail(errno.EINVAL)
    signed = seconds - 2 * _I64 if seconds >= _I64 else seconds
    return signed * _BILLION + nanoseconds


def _sized(value: bytes, size: int) -> Payload:
    if size == 0:
        return fuse.GETXATTR_OUT.pack(len(value), 0)
    if len(value) > size:
        raise fail(errno.ERANGE)
    return value
