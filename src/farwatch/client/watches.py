"""Watches on the server, and what it tells of them.

A watch is a mark in the core here and, where the server takes part, one mark a node there,
whose mask is the union of what all watches on it need.

    placing     MARK is asked first, and the watch placed when it is answered: what the
                server had to say before (its sequence tells) is not for that watch.  What
                it says meanwhile is held back, for it may already be for it.
    changing    whenever the union of a node has changed, MARK says so (``catch_up``): a
                watch was removed, changed, or ended by itself (ONESHOT)
    limbo       in remote mode, of a node that this client has removed: MARK with LIMBO.
                Its events may come later than the answer to its removal

An inode with marks is held, so it is never forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable

from farwatch.abi import fsnotify
from farwatch.abi.fsnotify import MarkFlag
from farwatch.client import answers
from farwatch.client.asking import Path, again, path_bytes
from farwatch.client.fsnotify import Group
from farwatch.client.fsnotify.masks import asked
from farwatch.client.hearing import Hearing
from farwatch.client.inodes import IN_LIMBO, Inode
from farwatch.client.walking import Walk
from farwatch.linux.inotify import IN_DONT_FOLLOW, IN_ONLYDIR


class Watches(Hearing):
    """See the top of the file."""

    @property
    def watched(self) -> int:
        """How many inodes are kept for their watches."""
        return len(self._watched)

    # Placing and removing --------------------------------------------------------------

    @again
    async def add_watch(self, group: Group, path: Path, mask: int) -> int:
        """inotify_add_watch(2): watches what is at a path; its watch descriptor.

        Raises OSError: EINVAL for the mask, EEXIST for IN_MASK_CREATE, ENOTDIR for
        IN_ONLYDIR, what a walk raises, and ENOSPC if the server has too many marks.
        """
        asked(mask)
        with Walk(self) as walk:
            dentry = await walk.to(
                path_bytes(path),
                follow=not mask & IN_DONT_FOLLOW,
                directory=bool(mask & IN_ONLYDIR),
            )
            return await self.watch_inode(group, dentry.inode, mask)

    async def watch_inode(self, group: Group, inode: Inode, mask: int) -> int:
        """The same for an inode that the caller holds."""
        group.check_watch(inode.id, mask, is_dir=inode.is_dir)
        if self.mode is None:
            wd = group.add_watch(inode.id, mask, is_dir=inode.is_dir)
            self._keep(inode)
            self._note_marks()
            await self.catch_up()
            return wd
        self.hold_back()
        inode.asking.append(mask)
        try:
            try:
                after = await self._mark(inode, self._wanted(inode))
            finally:
                inode.asking.remove(mask)
            wd = group.add_watch(inode.id, mask, is_dir=inode.is_dir, after=after)
            self._keep(inode)
            if self._is_late:
                group.overflow()
        finally:
            self.hear_again()
            self._unsettled[inode.id] = None
            self._note_marks()
        await self.catch_up()
        return wd

    async def rm_watch(self, group: Group, wd: int) -> None:
        """inotify_rm_watch(2).  Raises OSError EINVAL for what is no watch of the group's."""
        group.rm_watch(wd)
        self._note_marks()
        await self.catch_up()

    async def close_group(self, group: Group) -> None:
        """Closes an inotify instance, and all its watches with it."""
        group.close()
        self._note_marks()
        await self.catch_up()

    def _keep(self, inode: Inode) -> None:
        if inode.id not in self._watched:
            self._watched[inode.id] = self.inodes.hold(inode)

    async def mark_again(self, inode: Inode, mask: int) -> int:
        """Has the server mark an inode for watches that the core has already.

        The sequence of the last event before it.
        """
        if self.mode is None or not mask:
            return 0
        return await self._mark(inode, mask)

    def adopt(self, inodes: Iterable[Inode]) -> None:
        """These inodes have watches of an earlier connection's."""
        for inode in inodes:
            self._keep(inode)
        self._note_marks()

    # The server's marks ------------------------------------------------------------------

    def _wanted(self, inode: Inode) -> int:
        """What the server's mark must have."""
        union = self.core.union(inode.id)
        for mask in inode.asking:
            union |= self.core.union(inode.id, adding=mask)
        return union

    async def _mark(self, inode: Inode, mask: int, flags: int = 0) -> int:
        """Asks for a mark; the sequence of the last event before it."""
        before, inode.mark = inode.mark, IN_LIMBO if flags & MarkFlag.LIMBO else mask
        body = fsnotify.MARK_IN.pack(inode.id.generation, mask, flags)
        try:
            data = await self.ask(fsnotify.MARK, inode.node, body)
        except OSError:
            inode.mark = before
            raise
        return answers.marked(data).sequence

    async def catch_up(self) -> None:
        """Tells the server which marks have changed, and lets go of what has none."""
        while self._unsettled:
            node = next(iter(self._unsettled))
            del self._unsettled[node]
            inode = self._watched.get(node) or self.inodes.get(node)
            if inode is not None:
                self.inodes.hold(inode)
                try:
                    await self._settle(inode)
                finally:
                    self.inodes.release(inode)
        self.inodes.flush()

    async def _settle(self, inode: Inode) -> None:
        if self.mode is not None:
            await self._settle_mark(inode)
        is_needed = self.core.is_marked(inode.id) or inode.asking
        if not is_needed and self._watched.pop(inode.id, None) is not None:
            self.inodes.release(inode)

    async def _settle_mark(self, inode: Inode) -> None:
        try:
            if self.core.in_limbo(inode.id):
                if inode.mark != IN_LIMBO:
                    await self._mark(inode, 0, MarkFlag.LIMBO)
                return
            wanted = self._wanted(inode)
            if wanted != inode.mark:
                await self._mark(inode, wanted)
        except ConnectionError:
            raise
        except OSError:
            # The node is gone, and the server says so by itself.
            pass

    def _to_limbo(self, inode: Inode) -> None:
        if self.core.is_marked(inode.id):
            self.core.enter_limbo(inode.id)
            self._unsettled[inode.id] = None
            self._note_marks()
