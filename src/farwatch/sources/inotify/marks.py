"""The marks of one inotify instance.

directory    everything in it by name, and its own
file         what no directory is told: link counts, its end
file, wide   and its content as well: where a name of it may be in a directory that is not
             marked (more than one link), or it has no name left and somebody has it open

What marks cannot be had for is said once in the log.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable
from stat import S_ISDIR

from farwatch.events import READING, Key, Mask
from farwatch.linux.inotify import IN_ONLYDIR, Inotify

log = logging.getLogger(__name__)

_CONTENT = int(Mask.MODIFY | Mask.CLOSE_WRITE)
_SELF = int(Mask.ATTRIB | Mask.DELETE_SELF | Mask.MOVE_SELF)
_NAMES = int(Mask.CREATE | Mask.DELETE | Mask.MOVED_FROM | Mask.MOVED_TO)
_OF_DIRECTORIES = _NAMES | _CONTENT | _SELF | IN_ONLYDIR
_DROPPED_AT_ONCE = 256
_LIMITS = "fs.inotify.max_user_watches"


class Mark:
    """One mark: ``wd`` is the instance's number of it."""

    __slots__ = ("is_dir", "is_wide", "key", "wd")

    def __init__(self, wd: int, key: Key, is_dir: bool) -> None:
        self.wd = wd
        self.key = key
        self.is_dir = is_dir
        self.is_wide = False


class Marks:
    """By node, and by number.  Not locked."""

    def __init__(self, instance: Inotify) -> None:
        self._instance = instance
        self._by_key: dict[Key, Mark] = {}
        self._by_wd: dict[int, Mark] = {}
        self._reading = 0
        self._said: set[int] = set()

    def __len__(self) -> int:
        return len(self._by_key)

    def keys(self) -> Iterable[Key]:
        """The nodes that are marked."""
        return list(self._by_key)

    def of(self, wd: int) -> Mark | None:
        """The mark with a number; also one that was removed, until ``ended``."""
        return self._by_wd.get(wd)

    def get(self, node: Key) -> Mark | None:
        """A node's mark, if it has one."""
        return self._by_key.get(node)

    def tells(self, node: Key, mask: int) -> bool:
        """Whether a node's own mark tells of this kind."""
        mark = self._by_key.get(node)
        return mark is not None and bool(self._mask(mark.is_dir, mark.is_wide) & mask)

    def add(self, node: Key, fd: int, status: os.stat_result) -> None:
        """Mark a node; ``fd`` (O_PATH too) is open on it.

        What cannot be marked is not heard of by itself, which is said once.
        """
        if node in self._by_key:
            return
        is_dir = S_ISDIR(status.st_mode)
        is_wide = not is_dir and status.st_nlink > 1
        wd = self._place(fd, self._mask(is_dir, is_wide))
        if wd is None:
            return
        before = self._by_wd.get(wd)
        if before is not None and self._by_key.get(before.key) is before:
            return  # The same inode by another mount: it is told where it was seen first.
        mark = Mark(wd, node, is_dir)
        mark.is_wide = is_wide
        self._by_wd[wd] = self._by_key[node] = mark

    def widen(self, node: Key, fd: int) -> None:
        """Hear of a file's content by itself from now on."""
        mark = self._by_key.get(node)
        if mark is not None and not mark.is_dir and not mark.is_wide:
            mark.is_wide = self._place(fd, self._mask(False, True)) is not None

    def renew(self, node: Key, fd: int) -> None:
        """Ask for what is asked for now."""
        mark = self._by_key.get(node)
        if mark is not None:
            self._place(fd, self._mask(mark.is_dir, mark.is_wide))

    def remove(self, node: Key) -> None:
        """Take a node's mark away, if it has one; what it has heard can still be read."""
        mark = self._by_key.pop(node, None)
        if mark is None:
            return
        try:
            self._instance.remove(mark.wd)
        except OSError as error:
            if error.errno != errno.EINVAL:  # the inode has gone, and it has gone with it
                raise

    def ended(self, wd: int) -> None:
        """Nothing more will be read with this number."""
        mark = self._by_wd.pop(wd, None)
        if mark is not None and self._by_key.get(mark.key) is mark:
            del self._by_key[mark.key]

    def want(self, reading: int) -> None:
        """Which of the READING kinds marks are to ask for: those to come, and ``renew``."""
        self._reading = reading & int(READING)

    def _mask(self, is_dir: bool, is_wide: bool) -> int:
        if is_dir:
            return _OF_DIRECTORIES | self._reading
        return _SELF | _CONTENT | self._reading if is_wide else _SELF

    def _place(self, fd: int, mask: int) -> int | None:
        """The number of a mark that is made, or made anew; None if it cannot be."""
        for _ in range(2):
            try:
                return self._instance.add_fd(fd, mask)
            except OSError as error:
                number = error.errno or 0
                if number == errno.ENOENT:
                    return None
                if number == errno.ENOSPC and mask & IN_ONLYDIR and self._drop_some():
                    continue
                self._say(number)
                return None
        return None

    def _drop_some(self) -> bool:
        """A directory needs a mark more than files do; whether some were given up."""
        files = [mark.key for mark in self._by_key.values() if not mark.is_dir]
        for node in files[:_DROPPED_AT_ONCE]:
            self.remove(node)
        if files:
            self._say(errno.ENOSPC)
        return bool(files)

    def _say(self, number: int) -> None:
        if number in self._said:
            return
        self._said.add(number)
        if number == errno.ENOSPC:
            log.warning(
                "%d files and directories are watched, and more cannot be (%s): of some"
                " no change will be heard",
                len(self._by_key),
                _LIMITS,
            )
        elif number == errno.EACCES:
            log.warning(
                "some files and directories may not be read, and so not be watched: of"
                " those no change will be heard"
            )
        else:
            log.warning("some files cannot be watched: %s", os.strerror(number))
