"""What happens to a disk, as data: what a host's program and a client can do alike.

mkdir create symlink link unlink rmdir rename exchange chmod truncate utime setxattr
open HANDLE PATH HOW (r w c: create and write)   write HANDLE   read HANDLE   close HANDLE
list PATH    stat PATH
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from typing import NamedTuple

from farwatch.export.tree import NOW, Caller, SetAttr
from farwatch.linux.files import RENAME_EXCHANGE, renameat2
from tests.session.memory import Inode
from tests.simulator import facts
from tests.simulator.dentries import Opening
from tests.simulator.disk import WatchedDisk


class Op(NamedTuple):
    """One operation."""

    name: str
    args: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((self.name, *self.args))


def ops(text: str) -> list[Op]:
    """A history, written one operation after the other with semicolons."""
    found = (part.split() for part in text.split(";"))
    return [Op(words[0], tuple(words[1:])) for words in found if words]


FLAGS = {"r": os.O_RDONLY, "w": os.O_WRONLY, "c": os.O_WRONLY | os.O_CREAT}
_CALLER = Caller(0, 0, 0)


class OnDisk:
    """A program on the server's host, which works on the disk itself."""

    def __init__(self, disk: WatchedDisk, thread: int) -> None:
        self._disk = disk
        self._thread = thread
        self._open: dict[str, Opening] = {}

    def do(self, op: Op) -> int:
        """Does it; its errno."""
        with self._disk.acting(self._thread):
            try:
                getattr(self, f"do_{op.name}")(*op.args)
            except OSError as error:
                return error.errno or errno.EIO
            except KeyError:
                return errno.ENOENT
        return 0

    def do_mkdir(self, path: str) -> None:
        self._disk.do_mkdir(path)

    def do_create(self, path: str) -> None:
        self._disk.do_file(path)

    def do_symlink(self, target: str, path: str) -> None:
        self._disk.do_symlink(path, target.encode())

    def do_link(self, old: str, new: str) -> None:
        if self._disk.at(old).is_dir:
            raise OSError(errno.EPERM, "a directory")
        self._disk.do_link(old, new)

    def do_unlink(self, path: str) -> None:
        self._disk.unlink(*self._disk.place(path))

    def do_rmdir(self, path: str) -> None:
        self._disk.rmdir(*self._disk.place(path))

    def do_rename(self, old: str, new: str) -> None:
        self._disk.do_rename(old, new)

    def do_exchange(self, one: str, two: str) -> None:
        self._disk.do_rename(one, two, RENAME_EXCHANGE)

    def _followed(self, path: str) -> Inode:
        """What a path leads to; no symbolic link leads anywhere."""
        inode = self._disk.at(path)
        if stat.S_ISLNK(inode.mode):
            raise OSError(errno.ENOENT, "a link to nowhere")
        return inode

    def _setattr(self, path: str, changes: SetAttr) -> None:
        key = self._followed(path).key
        self._disk.setattr(key, None, changes, _CALLER, place=self._disk.place(path))

    def do_chmod(self, path: str) -> None:
        self._setattr(path, SetAttr(mode=0o600))

    def do_truncate(self, path: str) -> None:
        self._setattr(path, SetAttr(size=3))

    def do_utime(self, path: str) -> None:
        self._setattr(path, SetAttr(atime_ns=NOW, mtime_ns=NOW))

    def do_setxattr(self, path: str) -> None:
        key = self._followed(path).key
        self._disk.setxattr(key, b"user.x", b"y", 0, _CALLER, place=self._disk.place(path))

    def do_open(self, handle: str, path: str, how: str) -> None:
        place = self._disk.place(path)
        if how == "c" and self._disk.node_at(*place) is None:
            self._disk.do_file(path)
        if self._followed(path).is_dir and how != "r":
            raise OSError(errno.EISDIR, "a directory")
        self._open[handle] = self._disk.open_at(place, FLAGS[how] & ~os.O_TRUNC)

    def do_write(self, handle: str) -> None:
        opening = self._open[handle]
        if not opening.writes:
            raise OSError(errno.EBADF, "not open for writing")
        if opening.inode.memory >= 0:
            os.pwrite(opening.inode.memory, b"content", 0)
        self._disk.tell_of(facts.MODIFY, opening)

    def do_read(self, handle: str) -> None:
        opening = self._open[handle]
        if opening.writes or opening.inode.is_dir:
            raise OSError(errno.EBADF, "not a file that is open for reading")
        if opening.inode.content():
            self._disk.tell_of(facts.ACCESS, opening)

    def do_close(self, handle: str) -> None:
        self._disk.close_opening(self._open.pop(handle))

    def do_list(self, path: str) -> None:
        if not self._disk.at(path).is_dir:
            raise OSError(errno.ENOTDIR, "not a directory")
        opening = self._disk.open_at(self._disk.place(path), os.O_RDONLY)
        # Twice: until there is nothing more.
        self._disk.tell_of(facts.ACCESS, opening)
        self._disk.tell_of(facts.ACCESS, opening)
        self._disk.close_opening(opening)

    def do_stat(self, path: str) -> None:
        self._disk.at(path)

    def close(self) -> None:
        """Close what is open."""
        for handle in list(self._open):
            self.do(Op("close", (handle,)))


class OnDirectory:
    """The same on a real directory."""

    def __init__(self, directory: int) -> None:
        self._fd = directory
        self._open: dict[str, int] = {}

    def do(self, op: Op) -> int:
        """Does it; its errno."""
        try:
            getattr(self, f"do_{op.name}")(*op.args)
        except OSError as error:
            return error.errno or errno.EIO
        except KeyError:
            return errno.ENOENT
        return 0

    def do_mkdir(self, path: str) -> None:
        os.mkdir(path, dir_fd=self._fd)

    def do_create(self, path: str) -> None:
        os.mknod(path, stat.S_IFREG | 0o644, dir_fd=self._fd)

    def do_symlink(self, target: str, path: str) -> None:
        os.symlink(target, path, dir_fd=self._fd)

    def do_link(self, old: str, new: str) -> None:
        os.link(old, new, src_dir_fd=self._fd, dst_dir_fd=self._fd, follow_symlinks=False)

    def do_unlink(self, path: str) -> None:
        os.unlink(path, dir_fd=self._fd)

    def do_rmdir(self, path: str) -> None:
        os.rmdir(path, dir_fd=self._fd)

    def do_rename(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def do_exchange(self, one: str, two: str) -> None:
        renameat2(self._fd, one.encode(), self._fd, two.encode(), RENAME_EXCHANGE)

    def do_chmod(self, path: str) -> None:
        os.chmod(path, 0o600, dir_fd=self._fd)

    def do_truncate(self, path: str) -> None:
        os.truncate(f"/proc/self/fd/{self._fd}/{path}", 3)

    def do_utime(self, path: str) -> None:
        os.utime(path, dir_fd=self._fd)

    def do_setxattr(self, path: str) -> None:
        os.setxattr(f"/proc/self/fd/{self._fd}/{path}", "user.x", b"y")

    def do_open(self, handle: str, path: str, how: str) -> None:
        self._open[handle] = os.open(path, FLAGS[how] | os.O_CLOEXEC, 0o644, dir_fd=self._fd)

    def do_write(self, handle: str) -> None:
        os.pwrite(self._open[handle], b"content", 0)

    def do_read(self, handle: str) -> None:
        os.pread(self._open[handle], 100, 0)

    def do_close(self, handle: str) -> None:
        os.close(self._open.pop(handle))

    def do_list(self, path: str) -> None:
        os.listdir(f"/proc/self/fd/{self._fd}/{path}")

    def do_stat(self, path: str) -> None:
        os.stat(path, dir_fd=self._fd, follow_symlinks=False)

    def close(self) -> None:
        """Close what is open."""
        for handle in list(self._open):
            self.do(Op("close", (handle,)))


def play(program: OnDisk | OnDirectory, history: Iterable[Op]) -> list[int]:
    """Does all of it; the errnos."""
    return [program.do(op) for op in history]
