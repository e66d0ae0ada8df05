"""A mount namespace that holds nothing of the host's but what is asked for."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Mapping
from contextlib import suppress

from farwatch.linux import mounts
from farwatch.linux.files import AT_FDCWD

_ROOT = mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NODEV | mounts.MOUNT_ATTR_NOEXEC


def enter_private_root(binds: Mapping[str, int]) -> None:
    """Leave the host's mounts for a root of one's own.

    ``binds`` maps absolute paths to detached trees (``open_tree`` with
    OPEN_TREE_CLONE), which are attached there; the descriptors stay the
    caller's.  Afterwards ``/`` is an empty read-only tmpfs with /proc and these
    paths, the current directory is ``/``, and no propagation leads in or out:
    the host may unmount what it likes, except what a descriptor that was
    opened before still holds.

    For a process with one thread (the namespace is the calling thread's).
    Needs CAP_SYS_ADMIN; raises OSError.  If it raises, the process is
    somewhere between the two roots and should end.

    There is no way back, and no file of the Python installation is left to
    open: import everything that will be used before, also what the standard
    library imports late (the encodings that are named at run time, ``traceback``
    and ``linecache`` for messages, ``socket``'s ``encodings.idna``), and do not
    start programs.  Modules that are loaded keep working, and so do threads:
    the library that glibc loads at the first ``pthread_exit`` is loaded here.
    """
    _load_unwinder()
    proc = mounts.open_tree(AT_FDCWD, b"/proc", mounts.OPEN_TREE_CLONE)
    try:
        mounts.unshare(mounts.CLONE_NEWNS)
        mounts.mount(None, b"/", None, mounts.MS_REC | mounts.MS_PRIVATE)
        root = mounts.fsmount(b"tmpfs", {b"source": b"farwatch", b"mode": b"0755"}, _ROOT)
        try:
            _replace_root(root)
            for path, tree in {"/proc": proc, **binds}.items():
                os.makedirs(path, mode=0o755)
                mounts.move_mount(tree, os.fsencode(path))
            # A tree that was cloned from a shared mount is shared as well.
            mounts.mount(None, b"/", None, mounts.MS_REC | mounts.MS_PRIVATE)
            mounts.mount_setattr(root, mounts.MOUNT_ATTR_RDONLY, 0, recursive=False)
        finally:
            os.close(root)
    finally:
        os.close(proc)


def _load_unwinder() -> None:
    """pthread_exit (a daemon thread at exit) aborts if glibc cannot load this then."""
    # Not glibc, or not installed: then it could not be loaded later either.
    with suppress(OSError):
        ctypes.CDLL("libgcc_s.so.1")


def _replace_root(root: int) -> None:
    """Put the detached mount ``root`` over ``/`` and drop what was there."""
    inner = _mount_points()
    mounts.move_mount(root, b"/")
    os.fchdir(root)
    try:
        mounts.pivot_root(b".", b".")
    except OSError as error:
        if error.errno != errno.EINVAL or not _is_rootfs():
            raise
        # The kernel's first root (a guest that lives in its initramfs) cannot
        # be pivoted away from, only emptied and covered.
        _detach(inner)
        os.chroot(".")
    else:
        # Old and new root are both at "."; the old one is on top.
        mounts.umount(b".", mounts.MNT_DETACH)
    os.chdir("/")


def _mount_points() -> list[bytes]:
    with open("/proc/self/mountinfo", "rb") as file:
        return [entry.mount_point for entry in mounts.parse_mountinfo(file.read())]


def _is_rootfs() -> bool:
    """Whether ``/`` is a mount, so that only its lack of a parent can be the trouble."""
    fd = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        return mounts.is_mount_root(fd)
    finally:
        os.close(fd)


def _detach(points: list[bytes]) -> None:
    for point in reversed(points):
        if point == b"/":
            continue
        try:
            mounts.umount(point, mounts.MNT_DETACH | mounts.UMOUNT_NOFOLLOW)
        except OSError as error:
            # EINVAL, ENOENT: it went together with the mount that it was in.
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
