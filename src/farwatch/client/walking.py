"""Walking paths: fs/namei.c, in an export whose root is every path's beginning.

    ""              ENOENT
    "a", "/a"       the same: there is no current directory
    ".."            the directory before; the root's is the root
    symbolic link   followed within the export, an absolute one from its root; more than
                    40 in one walk: ELOOP.  The last one if it is wanted, or a slash follows
    "a/"            what is there must be a directory

A walk holds every inode that it has met until it ends.
"""

from __future__ import annotations

import errno
from collections import deque
from enum import Enum, auto
from types import TracebackType
from typing import NamedTuple, Self

from farwatch.abi.fuse import Opcode
from farwatch.client import answers
from farwatch.client.answers import NAME_MAX, PATH_MAX, Attributes
from farwatch.client.asking import Asking, fail
from farwatch.client.inodes import Dentry, Inode

_MOST_LINKS = 40
"""``MAXSYMLINKS`` (linux/namei.h)."""


class Kind(Enum):
    """What a path's last component is (``LAST_NORM``…)."""

    NAME = auto()
    ROOT = auto()
    DOT = auto()
    DOTDOT = auto()


class Last(NamedTuple):
    """A path's last component, which was not looked up."""

    parent: Inode
    name: bytes
    kind: Kind
    has_slash: bool
    """Whether a slash follows."""


class Walk:
    """One walk; a context, which holds what it meets."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking
        self._inodes = asking.inodes
        self._held: list[Dentry] = []
        self._chain = [asking.inodes.root]
        self._links = 0
        self.attributes: Attributes | None = None
        """What the last name that was looked up was told to hold."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for dentry in reversed(self._held):
            self._inodes.release_name(dentry)
        self._held.clear()
        self._inodes.flush()

    async def to(self, path: bytes, *, follow: bool = True, directory: bool = False) -> Dentry:
        """What is at a path.

        ``directory``: else ENOTDIR, and a symbolic link is followed only if ``follow`` says
        so.  Raises OSError: ENOENT, ENOTDIR, ELOOP, ENAMETOOLONG, and what the server says.
        """
        last = await self.parent(path)
        while True:
            dentry = await self.at(last)
            directory |= last.has_slash
            if not dentry.inode.is_link or not (follow or last.has_slash):
                break
            last = await self.through(dentry)
        if directory and not dentry.inode.is_dir:
            raise fail(errno.ENOTDIR, path)
        return dentry

    async def parent(self, path: bytes) -> Last:
        """All but the last component, from the root."""
        if not path:
            raise fail(errno.ENOENT)
        if len(path) >= PATH_MAX:
            raise fail(errno.ENAMETOOLONG)
        del self._chain[1:]
        return await self._descend(path)

    async def through(self, link: Dentry) -> Last:
        """The same for what a symbolic link in the directory of the last walk points to."""
        return await self._descend(await self._target(link))

    async def at(self, last: Last) -> Dentry:
        """What a last component is.  Raises OSError ENOENT."""
        if last.kind is not Kind.NAME:
            if last.kind is Kind.DOTDOT and len(self._chain) > 1:
                self._chain.pop()
            self.attributes = None
            return self._chain[-1]
        return await self.child(last.parent, last.name)

    async def child(self, parent: Inode, name: bytes) -> Dentry:
        """What a name holds.  Raises OSError ENOENT."""
        found = await self.child_if_any(parent, name)
        if found is None:
            raise fail(errno.ENOENT, name)
        return found

    async def child_if_any(self, parent: Inode, name: bytes) -> Dentry | None:
        """What a name holds, None for nothing."""
        if len(name) > NAME_MAX:
            raise fail(errno.ENAMETOOLONG, name)
        try:
            data = await self._asking.ask(Opcode.LOOKUP, parent.node, name + b"\0")
        except FileNotFoundError:
            return None
        entry = answers.entry(data)
        if not entry.node:
            return None
        inode = self._inodes.told(entry)
        dentry = self._inodes.named(parent, name, inode)
        self._held.append(dentry)
        self.attributes = entry.attributes
        return dentry

    async def _descend(self, path: bytes) -> Last:
        left = self._parts(path)
        if not left:
            return Last(self._chain[0].inode, b"", Kind.ROOT, has_slash=False)
        while len(left) > 1:
            await self._step(left.popleft(), left)
        name, here = left.popleft(), self._here()
        kind = {b".": Kind.DOT, b"..": Kind.DOTDOT}.get(name, Kind.NAME)
        return Last(here, name, kind, path.endswith(b"/"))

    def _parts(self, path: bytes) -> deque[bytes]:
        if path.startswith(b"/"):
            del self._chain[1:]
        return deque(part for part in path.split(b"/") if part)

    async def _step(self, name: bytes, left: deque[bytes]) -> None:
        here = self._here()
        if name == b".":
            return
        if name == b"..":
            if len(self._chain) > 1:
                self._chain.pop()
            return
        dentry = await self.child(here, name)
        if dentry.inode.is_link:
            left.extendleft(reversed(self._parts(await self._target(dentry))))
        else:
            self._chain.append(dentry)

    def _here(self) -> Inode:
        here = self._chain[-1].inode
        if not here.is_dir:
            raise fail(errno.ENOTDIR)
        return here

    async def _target(self, link: Dentry) -> bytes:
        self._links += 1
        if self._links > _MOST_LINKS:
            raise fail(errno.ELOOP)
        return answers.link_target(await self._asking.ask(Opcode.READLINK, link.inode.node, b""))
