"""What this client's own operations raise: the calls of ``include/linux/fsnotify.h``.

Each is to be called when the server has answered that the operation is done, and nothing
may be awaited in between.  In remote mode none of them raises anything: the server will
tell.  Measured of Linux 6.18, and so in this order:

    creat               CREATE, OPEN
    open with O_TRUNC   OPEN, MODIFY
    link                ATTRIB of the inode, CREATE
    unlink              ATTRIB of the inode, [DELETE_SELF], DELETE
    rmdir               DELETE_SELF, DELETE
    rename              MOVED_FROM, MOVED_TO, ATTRIB of what was replaced, MOVE_SELF;
                        [DELETE_SELF of what was replaced]
    exchange            MOVED_FROM, MOVED_TO, MOVE_SELF, and once more the other way round
    last close          CLOSE_WRITE or CLOSE_NOWRITE, [DELETE_SELF]

DELETE_SELF when a dentry goes and no link is left (``dentry_unlink_inode``): a name goes when
it is removed, but one by which somebody here has the file open when that is closed.  Then
the inode is gone, even if it is still open by another link's name; or, in remote mode, in
limbo until the server has said that it is.
"""

from __future__ import annotations

from farwatch.abi.fsnotify import Event, Mode, Source
from farwatch.client.asking import Asking
from farwatch.client.inodes import Dentry, Inode
from farwatch.events import Mask


class Facts(Asking):
    """See the top of the file."""

    def _say(self, event: Event, *, through_unlinked: bool = False) -> None:
        if self.raises and not self.is_over:
            event = event._replace(source=Source.LOCAL, client=self.number)
            if self.on_fact is not None:
                self.on_fact(event)
            self.core.fsnotify(event, through_unlinked=through_unlinked)
            self._note_marks()

    def inode_fact(self, mask: int, inode: Inode) -> None:
        """Something of an inode alone (``fsnotify_inode``)."""
        node, generation = inode.id
        self._say(Event(_kind(mask, inode), node=node, generation=generation))

    def name_fact(
        self,
        mask: int,
        parent: Inode,
        name: bytes,
        inode: Inode,
        *,
        cookie: int = 0,
        through_unlinked: bool = False,
    ) -> None:
        """Something of a name (``fsnotify_name``), or by way of a name."""
        event = Event(
            _kind(mask, inode),
            node=inode.id.node,
            parent=parent.id.node,
            name=name,
            cookie=cookie,
            generation=inode.id.generation,
            parent_generation=parent.id.generation,
        )
        self._say(event, through_unlinked=through_unlinked)

    def dentry_fact(self, mask: int, dentry: Dentry, *, by_file: bool = False) -> None:
        """Something that was done by way of a name, as it is now (``fsnotify_dentry``).

        ``by_file``: through an open file (``fsnotify_file``), which a name that is gone
        keeps from watches with IN_EXCL_UNLINK.
        """
        if dentry.parent is None:
            self.inode_fact(mask, dentry.inode)
        else:
            through_unlinked = by_file and dentry.is_unlinked
            self.name_fact(
                mask,
                dentry.parent,
                dentry.name,
                dentry.inode,
                through_unlinked=through_unlinked,
            )

    # Names ---------------------------------------------------------------------------

    def made(self, parent: Inode, name: bytes, inode: Inode) -> None:
        """CREATE (``fsnotify_create``, ``fsnotify_mkdir``)."""
        self.name_fact(Mask.CREATE, parent, name, inode)

    def linked(self, parent: Inode, name: bytes, inode: Inode) -> None:
        """A further name (``fsnotify_link``)."""
        self.inode_fact(Mask.ATTRIB, inode)
        self.name_fact(Mask.CREATE, parent, name, inode)

    def unlinked(self, dentry: Dentry) -> None:
        """unlink(2) is done: ``fsnotify_link_count``, then ``d_delete_notify``."""
        self._count_down(dentry)
        self.inode_fact(Mask.ATTRIB, dentry.inode)
        self._removed(dentry)

    def removed_directory(self, dentry: Dentry) -> None:
        """rmdir(2) is done: ``d_delete_notify``."""
        self._count_down(dentry)
        self._removed(dentry)

    def _removed(self, dentry: Dentry) -> None:
        parent = dentry.parent
        assert parent is not None
        self.inodes.unlinked(parent.id, dentry.name)
        self.if_gone(dentry)
        self.name_fact(Mask.DELETE, parent, dentry.name, dentry.inode)

    @staticmethod
    def _count_down(dentry: Dentry) -> None:
        inode = dentry.inode
        inode.nlink = 0 if inode.is_dir else max(inode.nlink - 1, 0)
        inode.is_ours = not inode.nlink

    def renamed(self, old: Dentry, new: Inode, new_name: bytes, replaced: Dentry | None) -> None:
        """rename(2) is done, of ``old`` to a name that held ``replaced``."""
        parent, old_name = old.parent, old.name
        assert parent is not None
        if replaced is not None:
            self._count_down(replaced)
        self.inodes.moved(parent.id, old_name, new, new_name)
        self._moved(parent, old_name, new, new_name, old.inode, replaced)
        if replaced is not None:
            self.if_gone(replaced)

    def exchanged(self, first: Dentry, second: Dentry) -> None:
        """rename(2) with RENAME_EXCHANGE is done."""
        here, name, there, other = first.parent, first.name, second.parent, second.name
        assert here is not None
        assert there is not None
        self.inodes.exchanged(here, name, there, other)
        self._moved(here, name, there, other, first.inode, None)
        self._moved(there, other, here, name, second.inode, None)

    def _moved(
        self,
        old: Inode,
        old_name: bytes,
        new: Inode,
        new_name: bytes,
        inode: Inode,
        replaced: Dentry | None,
    ) -> None:
        cookie = self.core.next_cookie()
        self.name_fact(Mask.MOVED_FROM, old, old_name, inode, cookie=cookie)
        self.name_fact(Mask.MOVED_TO, new, new_name, inode, cookie=cookie)
        if replaced is not None:
            self.inode_fact(Mask.ATTRIB, replaced.inode)
        self.inode_fact(Mask.MOVE_SELF, inode)

    def if_gone(self, dentry: Dentry) -> None:
        """DELETE_SELF, if no link is left and nobody here has it open by this name.

        Where only others know that the name was removed, by any.
        What others have removed they may still have open: where a server tells of them, it
        tells when that is over.
        """
        inode = dentry.inode
        opens = dentry.opens if dentry.is_unlinked else inode.opens
        if inode.nlink or opens or inode.is_gone:
            return
        if self.mode is Mode.MERGED and not inode.is_ours:
            return
        inode.is_gone = True
        if self.raises:
            self.inode_fact(Mask.DELETE_SELF, inode)
        else:
            self._to_limbo(inode)


def _kind(mask: int, inode: Inode) -> int:
    return mask | Mask.ISDIR if inode.is_dir else mask
