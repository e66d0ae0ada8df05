"""Follows, in the host's mount namespace, what is mounted below SRC, for the server of MNT.

    mountinfo changes ──> what is there now, beside what the server was told ──> told

The server has left that namespace, so it is handed a detached clone of each mount.  A clone
is another mount: the host's can be unmounted at any time, and the server lets go of the clone
when it is told.  Until then, a moment later, the file system itself stays in use.

Not followed are mounts that autofs has not made yet, MNT itself wherever it appears, and the
kernel's own file systems (proc, sysfs): they answer who asks, and that would be the server.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from farwatch.linux import mounts
from farwatch.linux.descriptors import Closable
from farwatch.linux.files import (
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    openat2,
)
from farwatch.linux.mounts import MountInfo
from farwatch.mounting.checks import Paths
from farwatch.serving.confinement import EXPORT
from farwatch.serving.submounts import Arrived, Gone, pair, tell
from farwatch.transports.devfuse import FSTYPE

log = logging.getLogger(__name__)

_BENEATH = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_AGAIN_SECONDS = 1.0
"""After which a server is told that could not be told at once."""
_Known = tuple[int, int, bytes]
"""A mount by its number, its file system's, and what of that is mounted.

The number alone is not enough: what is mounted next is given that of what was unmounted.  As
long as the server has a clone, nobody is given the number of its file system.
"""
_NONE: _Known = (-1, 0, b"")
"""No mount: what the server has at a path is not there any more."""
_NOT_FOLLOWED = frozenset(
    b"autofs binfmt_misc bpf cgroup cgroup2 configfs debugfs devpts efivarfs fusectl mqueue"
    b" nsfs proc pstore rpc_pipefs securityfs selinuxfs sysfs tracefs".split()
)


class HostSubmounts(Closable):
    """What the server of one mount was told; owns a socket, and the server's end of it."""

    def __init__(self, paths: Paths, src_fd: int) -> None:
        """``src_fd`` is open on SRC, and stays the caller's."""
        self._paths = paths
        self._base = mounts.statx_mount_id(src_fd)
        self._source = paths.source
        """Where SRC is by now; it may have been renamed."""
        self._server = 0
        self._told: dict[bytes, _Known] = {}
        """The mount at each path below SRC."""
        self._refused: set[_Known] = set()
        """Mounts of which no clone can be had: that is said once."""
        self._mine, self.servers = pair()
        self._mountinfo = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread: threading.Thread | None = None

    def first(self) -> list[Arrived]:
        """All that is there, for a server that is not running yet; the caller's."""
        return [each for each in self._differences() if isinstance(each, Arrived)]

    def start(self, server: int) -> None:
        """From now on the server is told, by a thread: a mount may not answer for long.

        ``server`` is its process, whose mount of SRC says where in its file system that is.
        """
        self._server = server
        self.servers.close()
        self._thread = threading.Thread(target=self._run, name="submounts", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        poll = select.poll()
        # As proc_pid_mountinfo(5) says: readable it is always.
        poll.register(self._mountinfo, select.POLLPRI | select.POLLERR)
        poll.register(self._wake_read, select.POLLIN)
        is_behind = True
        while True:
            ready = poll.poll(_AGAIN_SECONDS * 1000 if is_behind else None)
            if any(fd == self._wake_read for fd, _ in ready):
                return
            try:
                is_behind = not self._tell()
            except OSError:
                log.debug("the server is not told of mounts any more", exc_info=True)
                return

    def _tell(self) -> bool:
        """Whether the server has been told all.  Raises OSError when it is gone."""
        for what in self._differences():
            try:
                tell(self._mine, what)
            except BlockingIOError:
                if isinstance(what, Gone):
                    self._told[what.path] = _NONE
                else:
                    del self._told[what.path]
                return False
            finally:
                if isinstance(what, Arrived):
                    os.close(what.tree)
        return True

    def _differences(self) -> Iterator[Arrived | Gone]:
        """What the server is to be told; taken for told when it is given out."""
        found = self._present()
        there = {_known(mount): path for path, mount in found.items()}
        self._refused.intersection_update(there)
        for path in sorted(self._told, key=_depth, reverse=True):
            known = self._told[path]
            if there.get(known) != path:
                del self._told[path]
                if known not in there:
                    yield Gone(path)
        for path in sorted(found, key=_depth):
            mount = found[path]
            if path in self._told or _known(mount) in self._refused:
                continue
            tree = self._clone(path, mount)
            if tree is not None:
                self._told[path] = _known(mount)
                yield Arrived(path, mount.fstype, mount.mount_id, tree)

    def _present(self) -> dict[bytes, MountInfo]:
        """The mounts below SRC, by their paths from there."""
        os.lseek(self._mountinfo, 0, os.SEEK_SET)
        with open(self._mountinfo, "rb", closefd=False) as file:
            everything = mounts.parse_mountinfo(file.read())
        own = {
            mount.device
            for mount in everything
            if mount.mount_point == self._paths.target and mount.fstype == FSTYPE
        }
        self._source = self._find_source(everything)
        seen = visible(self._source, self._base, everything)
        return {
            path: mount
            for path, mount in seen.items()
            if mount.device not in own and mount.fstype not in _NOT_FOLLOWED
        }

    def _find_source(self, everything: Sequence[MountInfo]) -> bytes:
        """The path of SRC, by what the server has mounted of it; the last one known, if any."""
        try:
            with open(f"/proc/{self._server}/mountinfo", "rb") as file:
                servers = mounts.topmost(EXPORT, mounts.parse_mountinfo(file.read()))
        except OSError:
            return self._source
        base = next((mount for mount in everything if mount.mount_id == self._base), None)
        if base is None or servers is None:
            return self._source
        top, root = base.root.rstrip(b"/"), servers.root.rstrip(b"/")
        if root != top and not root.startswith(top + b"/"):
            return self._source
        return base.mount_point.rstrip(b"/") + root[len(top) :] or b"/"

    def _clone(self, path: bytes, mount: MountInfo) -> int | None:
        """A detached clone of the mount, without those below it; None if it is not there."""
        try:
            with _opened(os.open(self._source, _DIRECTORY)) as src_fd:
                if mounts.statx_mount_id(src_fd) != self._base:
                    return None
                point = openat2(src_fd, path, os.O_PATH, 0, _BENEATH)
            with _opened(point) as fd:
                if mounts.statx_mount_id(fd) != mount.mount_id:
                    return None
                tree = mounts.open_tree(fd, b"", mounts.OPEN_TREE_CLONE)
            # What the host mounts there from now on would come along by itself.
            mounts.mount_setattr(tree, 0, 0, recursive=False, propagation=mounts.MS_PRIVATE)
        except OSError as error:
            self._refused.add(_known(mount))
            log.warning(
                "%s: what is mounted there is not shown: %s",
                os.fsdecode(mount.mount_point),
                error.strerror,
            )
            return None
        return tree

    def close(self) -> None:
        """The server is told no more.  May be called twice."""
        if self._mountinfo < 0:
            return
        os.write(self._wake_write, b"x")
        if self._thread is not None:
            self._thread.join(_AGAIN_SECONDS)
            if self._thread.is_alive():
                return  # A mount does not answer; the process ends without the thread.
        self.servers.close()
        self.leave()

    def leave(self) -> None:
        """Close all but the server's end: in the server's process."""
        self._mine.close()
        for fd in (self._mountinfo, self._wake_read, self._wake_write):
            os.close(fd)
        self._mountinfo = -1


def visible(directory: bytes, base: int, everything: Sequence[MountInfo]) -> dict[bytes, MountInfo]:
    """What a walk below a directory comes upon: the mount at each path from there.

    ``base`` is the id of the mount that the directory itself is on.  Left out is what lies
    under another mount, at the same path or above it.
    """
    inside = directory.rstrip(b"/") + b"/"
    below = [mount for mount in everything if mount.mount_point.startswith(inside)]
    found: dict[bytes, MountInfo] = {}
    # A mount is listed after the one that it covers.
    for mount in sorted(below, key=lambda mount: _depth(mount.mount_point)):
        path = mount.mount_point[len(inside) :]
        covered = found.get(path)
        under = _under(path, found, base) if covered is None else covered.mount_id
        if mount.parent_id == under:
            found[path] = mount
    return found


def _known(mount: MountInfo) -> _Known:
    return mount.mount_id, mount.device, mount.root


def _under(path: bytes, found: dict[bytes, MountInfo], base: int) -> int:
    """The id of the mount that the parent directory of a path is on."""
    parent = path
    while parent:
        parent = parent.rpartition(b"/")[0]
        if parent in found:
            return found[parent].mount_id
    return base


def _depth(path: bytes) -> int:
    return path.count(b"/")


@contextmanager
def _opened(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)
