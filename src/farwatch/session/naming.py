"""Requests about names: who holds what, and the client's own changes of it."""

from __future__ import annotations

import errno
import os
from contextlib import AbstractContextManager

from farwatch.abi import fuse
from farwatch.abi.fuse import Opcode
from farwatch.events import Key
from farwatch.export.nodes import Node
from farwatch.export.tree import Caller, Export
from farwatch.linux.files import RENAME_WHITEOUT
from farwatch.session.files import OpenFiles
from farwatch.session.graves import Graves
from farwatch.session.inodes import decode_device, no_entry
from farwatch.session.replay import RENAME_EXCHANGE
from farwatch.session.request import (
    Handler,
    Payload,
    Placed,
    Request,
    checked,
    fail,
    names,
    one_name,
)
from farwatch.session.view import View

CHANGES: frozenset[int] = frozenset(
    (
        Opcode.MKNOD,
        Opcode.MKDIR,
        Opcode.SYMLINK,
        Opcode.LINK,
        Opcode.UNLINK,
        Opcode.RMDIR,
        Opcode.RENAME,
        Opcode.RENAME2,
        Opcode.CREATE,
    )
)
"""What may change a name."""
_DOTS = (b".", b"..")
_PERMISSIONS = 0o777
_MOST_LOOKING = 256
_TWO_DIRECTORIES = (Opcode.RENAME, Opcode.RENAME2)
"""The second one's id is the first field of either (``fuse_rename_in``, ``fuse_rename2_in``)."""


class Naming:
    """Handlers of the requests that read or change names."""

    def __init__(
        self,
        export: Export,
        view: View,
        files: OpenFiles,
        graves: Graves,
        *,
        masks: bool = False,
    ) -> None:
        """With ``masks`` the modes of what is made are still without the caller's umask."""
        self._masks = masks
        self._graves = graves
        self._export = export
        self._view = view
        self._nodes = view.nodes
        self._files = files
        self._looks_again: dict[int, tuple[int, bytes]] = {}
        """What threads have just been told to look at again."""
        handlers: dict[int, Handler] = {
            Opcode.LOOKUP: self.lookup,
            Opcode.MKNOD: self.mknod,
            Opcode.MKDIR: self.mkdir,
            Opcode.SYMLINK: self.symlink,
            Opcode.LINK: self.link,
            Opcode.UNLINK: self.unlink,
            Opcode.RMDIR: self.rmdir,
            Opcode.RENAME: self.rename,
            Opcode.RENAME2: self.rename2,
            Opcode.CREATE: self.create,
            Opcode.TMPFILE: self.tmpfile,
        }
        self.handlers = {
            opcode: self._without_removed(handler) for opcode, handler in handlers.items()
        }

    def lookup(self, request: Request) -> Payload:
        """LOOKUP: the VFS walks a path, or (``.``, ``..``) opens a handle."""
        name = names(request.body, 0, 1)[0]
        if name in _DOTS:
            return self._lookup_dots(request.node, name)
        directory = self.directory(request.node)
        try:
            key, status = self._export.lookup(directory.key, checked(name))
        except FileNotFoundError:
            seconds = self._view.not_found(directory, name)
            if not seconds:
                raise
            return no_entry(seconds)
        return self.tell(directory, name, key, status)

    def _lookup_dots(self, node_id: int, name: bytes) -> Payload:
        node = self.node(node_id)
        if name == b"." and node.id == node_id:
            return self._view.entry(node, self.attributes(node))
        key, status = self._export.lookup(node.key, name)
        parent = self._nodes.obtain(key, status.st_mode)
        return self._view.entry(parent, self._view.attributes(parent, status))

    def _without_removed(self, handler: Handler) -> Handler:
        """The same, but ENOENT in a directory that the client knows to be removed.

        Its handle leads nowhere any more.  ESTALE would have the VFS walk the path again,
        and it has no name there; of a directory whose removal the client has not heard of
        yet ESTALE is the right answer, for there may be another at its name.
        """

        def answer(request: Request) -> Payload | Placed | None:
            try:
                return handler(request)
            except OSError as error:
                if error.errno == errno.ESTALE and self._in_removed(request):
                    raise fail(errno.ENOENT) from None
                raise

        return answer

    def _in_removed(self, request: Request) -> bool:
        ids = [request.node]
        if request.opcode in _TWO_DIRECTORIES:
            ids += fuse.RENAME_IN.unpack_from(request.body)
        nodes = [self._nodes.by_id.get(node_id) for node_id in ids]
        return all(nodes) and any(node.is_dir and node.dead for node in nodes if node)

    def tell(self, directory: Node, name: bytes, key: Key, status: os.stat_result) -> Payload:
        """The client learns what a name holds, by the disk."""
        node = self._nodes.obtain(key, status.st_mode)
        seconds = self._view.found(directory, name, node)
        return self._view.entry(node, self._view.attributes(node, status), seconds)

    def node(self, node_id: int) -> Node:
        """The node with an id that the client was given.  Raises OSError ESTALE."""
        node = self._nodes.by_id.get(node_id)
        if node is None:
            raise fail(errno.ESTALE)
        return node

    def directory(self, node_id: int) -> Node:
        """The same for a directory.  Raises OSError ESTALE or ENOTDIR."""
        node = self.node(node_id)
        if not node.is_dir:
            raise fail(errno.ENOTDIR)
        return node

    def attributes(self, node: Node) -> bytes:
        """``fuse_attr`` of a node, the last one known if the inode is gone."""
        if not node.key:
            return self._view.last_attributes(node)
        try:
            return self._view.attributes(node, self._export.getattr(node.key))
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            return self._view.last_attributes(node)

    # Making ----------------------------------------------------------------------

    def mknod(self, request: Request) -> Payload:
        """MKNOD: the client's mknod(2), and the making of a file on old kernels."""
        directory = self.directory(request.node)
        mode, device, umask, _ = fuse.MKNOD_IN.unpack_from(request.body)
        name = one_name(request.body, fuse.MKNOD_IN.size)
        made = self._export.mknod(
            directory.key, name, mode, decode_device(device), self._maker(request, umask)
        )
        return self._made(directory, name, made)

    def mkdir(self, request: Request) -> Payload:
        """MKDIR."""
        directory = self.directory(request.node)
        mode, umask = fuse.MKDIR_IN.unpack_from(request.body)
        name = one_name(request.body, fuse.MKDIR_IN.size)
        made = self._export.mkdir(directory.key, name, mode, self._maker(request, umask))
        return self._made(directory, name, made)

    def symlink(self, request: Request) -> Payload:
        """SYMLINK: the name, then what it points to."""
        directory = self.directory(request.node)
        name, target = names(request.body, 0, 2)
        made = self._export.symlink(directory.key, checked(name), target, self._maker(request))
        return self._made(directory, name, made)

    def link(self, request: Request) -> Payload:
        """LINK: a further name for a node."""
        directory = self.directory(request.node)
        node = self.node(fuse.LINK_IN.unpack_from(request.body)[0])
        name = one_name(request.body, fuse.LINK_IN.size)
        made = self._export.link(node.key, directory.key, name)
        node.dead = False
        return self._made(directory, name, made)

    def create(self, request: Request) -> Payload:
        """CREATE: open(2) with O_CREAT of a name that the client takes for unused.

        Its kernel raises CREATE whatever the answer.  So if somebody has made the file
        meanwhile it is told ESTALE, upon which the VFS looks again, and opens what is there;
        but not twice, for the second time a program would hear of it.
        """
        directory = self.directory(request.node)
        flags, mode, umask, _ = fuse.CREATE_IN.unpack_from(request.body)
        name = one_name(request.body, fuse.CREATE_IN.size)
        maker = self._maker(request, umask)
        key, status, fd = self._create(directory, name, mode, flags, maker)
        # Before it is told of: what is open for writing is not believed for long.
        opened = self._files.add(self._nodes.obtain(key, status.st_mode), fd, request.pid)
        return bytes(self._made(directory, name, (key, status))) + opened

    def _create(
        self, directory: Node, name: bytes, mode: int, flags: int, maker: Caller
    ) -> tuple[Key, os.stat_result, int]:
        was_told = self._looks_again.pop(maker.pid, None) == (directory.id, name)
        if was_told or flags & os.O_EXCL:
            return self._export.create(directory.key, name, mode, flags, maker)
        try:
            return self._export.create(directory.key, name, mode, flags | os.O_EXCL, maker)
        except FileExistsError:
            if len(self._looks_again) >= _MOST_LOOKING:
                self._looks_again.clear()
            self._looks_again[maker.pid] = directory.id, name
            raise fail(errno.ESTALE) from None

    def tmpfile(self, request: Request) -> Payload:
        """TMPFILE: open(2) with O_TMPFILE; the file has no name yet."""
        directory = self.directory(request.node)
        flags, mode, umask, _ = fuse.CREATE_IN.unpack_from(request.body)
        maker = self._maker(request, umask)
        key, status, fd = self._export.tmpfile(directory.key, mode, flags, maker)
        node = self._nodes.obtain(key, status.st_mode)
        node.dead = True
        opened = self._files.add(node, fd, request.pid)
        return self._view.entry(node, self._view.attributes(node, status)) + opened

    def _made(self, directory: Node, name: bytes, made: tuple[Key, os.stat_result]) -> Payload:
        key, status = made
        node = self._nodes.obtain(key, status.st_mode)
        self._view.created(directory, name, node)
        return self._view.entry(node, self._view.attributes(node, status))

    def _maker(self, request: Request, umask: int = 0) -> Caller:
        umask = umask & _PERMISSIONS if self._masks else 0
        return Caller(request.uid, request.gid, request.pid, request.groups, umask)

    # Unmaking --------------------------------------------------------------------

    def unlink(self, request: Request) -> Payload:
        """UNLINK."""
        directory = self.directory(request.node)
        name = one_name(request.body)
        self._must_be_believed(directory, name)
        with self._removing(directory, name):
            self._export.unlink(directory.key, name)
        self._view.removed(directory, name)
        return b""

    def rmdir(self, request: Request) -> Payload:
        """RMDIR."""
        directory = self.directory(request.node)
        name = one_name(request.body)
        self._must_be_believed(directory, name)
        with self._removing(directory, name):
            self._export.rmdir(directory.key, name)
        self._view.removed(directory, name)
        return b""

    def _removing(self, directory: Node, name: bytes) -> AbstractContextManager[None]:
        return self._graves.removing(directory, name, self._view.believed(directory, name))

    def rename(self, request: Request) -> Payload:
        """RENAME: rename(2)."""
        (new_directory,) = fuse.RENAME_IN.unpack_from(request.body)
        return self._rename(request, fuse.RENAME_IN.size, new_directory, 0)

    def rename2(self, request: Request) -> Payload:
        """RENAME2: renameat2(2) with flags."""
        new_directory, flags, _ = fuse.RENAME2_IN.unpack_from(request.body)
        return self._rename(request, fuse.RENAME2_IN.size, new_directory, flags)

    def _rename(self, request: Request, start: int, new_id: int, flags: int) -> Payload:
        old, new = self.directory(request.node), self.directory(new_id)
        old_name, new_name = (checked(name) for name in names(request.body, start, 2))
        self._must_be_believed(old, old_name)
        self._must_be_believed(new, new_name)
        # Only a whiteout, which is left at the old name, is made in somebody's name.
        maker = self._maker(request) if flags & RENAME_WHITEOUT else None
        with self._removing(new, new_name):
            self._export.rename(old.key, old_name, new.key, new_name, flags, maker)
        if flags & RENAME_EXCHANGE:
            self._view.exchanged(old, old_name, new, new_name)
        elif not self._is_same(old, old_name, new, new_name):
            self._view.moved(old, old_name, new, new_name)
        return b""

    def _is_same(self, old: Node, old_name: bytes, new: Node, new_name: bytes) -> bool:
        """Whether both names are links of one inode: rename(2) then does nothing."""
        node = self._view.believed(old, old_name)
        return node is not None and self._view.believed(new, new_name) is node

    def _must_be_believed(self, directory: Node, name: bytes) -> None:
        """The client's kernel acts on what it has cached under a name: it must be so.

        ESTALE makes the VFS ask again; by then it believes the disk.  What something is
        mounted on stays as it is (EBUSY).
        """
        believed = self._view.believed(directory, name)
        if believed is None or self._view.is_truthful:
            return
        key = self._export.node_at(directory.key, name)
        if key is not None and key != believed.key:
            is_busy = self._export.is_mount_point(directory.key, name)
            raise fail(errno.EBUSY if is_busy else errno.ESTALE)
