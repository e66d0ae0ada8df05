"""Names and open files, as the VFS has them (``struct dentry``, ``struct file``)."""

from __future__ import annotations

import os

from farwatch.events import Place
from tests.session.memory import Inode


class Dentry:
    """A name, for as long as it lives or something is open by it."""

    def __init__(self, parent: Inode, name: bytes, inode: Inode) -> None:
        self.parent = parent
        self.name = name
        self.inode = inode
        self.opens = 0
        self.hashed = True

    @property
    def place(self) -> Place:
        return Place(self.parent.key, self.name)


class Opening:
    """An open file or directory."""

    def __init__(self, inode: Inode, dentry: Dentry | None, flags: int) -> None:
        self.inode = inode
        self.dentry = dentry
        self.writes = flags & os.O_ACCMODE != os.O_RDONLY
        if dentry is not None:
            dentry.opens += 1
