"""What must hold before a directory is mounted on another."""

from __future__ import annotations

import errno
import logging
import os
from typing import NamedTuple

from farwatch.linux import fusermount, mounts
from farwatch.serving.refused import Refused
from farwatch.transports.devfuse import FSTYPE

log = logging.getLogger(__name__)

_DEVICE = "/dev/fuse"


class Paths(NamedTuple):
    """Where from and where to, as real absolute paths."""

    source: bytes
    target: bytes


def check(source: str, target: str) -> Paths:
    """Real paths of what is to be mounted.  Raises Refused."""
    if not os.path.exists(_DEVICE):
        raise Refused(
            "the kernel has no FUSE here",
            _DEVICE,
            "load it (modprobe fuse), or give the container the device",
        )
    if os.geteuid() != 0:
        _check_user()
    paths = Paths(_directory(source), _directory(target, is_source=False))
    if _is_below(paths.target, paths.source):
        raise Refused(
            "the mount would lie in the directory that it shows",
            target,
            f"mount outside of {source}",
        )
    if _is_below(paths.source, paths.target):
        raise Refused(
            "the mount would cover the directory that it shows",
            source,
            f"mount somewhere that does not hold {source}",
        )
    if mounted_at(paths.target) == FSTYPE:
        raise Refused(
            "farwatch is already mounted there", target, f"unmount it: farwatch unmount {target}"
        )
    return paths


def _check_user() -> None:
    """What an ordinary user needs besides.  Raises Refused."""
    if fusermount.program() is None:
        raise Refused(
            "mounting as an ordinary user takes fusermount3, which is not here",
            remedy=f"install the package {fusermount.PACKAGE}, or run it with sudo",
        )
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        raise Refused(
            "only root may use FUSE here",
            _DEVICE,
            "have its mode changed to 666, or run it with sudo",
        )


def mounted_at(path: bytes) -> bytes | None:
    """The type of the topmost file system that is mounted at a real path, if any is."""
    with open("/proc/self/mountinfo", "rb") as file:
        mount = mounts.topmost(path, mounts.parse_mountinfo(file.read()))
    return mount.fstype if mount is not None else None


def _directory(path: str, *, is_source: bool = True) -> bytes:
    try:
        real = os.path.realpath(os.fsencode(path), strict=True)
        # To open what an automounter waits to be asked for would be to wait for ourselves.
        if is_source or mounted_at(real) != b"autofs":
            os.close(os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            if not is_source and _cleared(path):
                return _directory(path, is_source=is_source)
            raise Refused(
                "a dead mount is in the way", path, f"unmount it: farwatch unmount {path}"
            ) from None
        reason = {
            errno.ENOENT: "no such directory",
            errno.ENOTDIR: "not a directory",
        }.get(error.errno or 0, error.strerror or "cannot be opened")
        raise Refused(reason, path) from None
    return real


def _cleared(path: str) -> bool:
    """Takes away a mount of farwatch's whose server has died; whether there was one.

    It answers ENOTCONN to everything, so nobody can be using it.
    """
    parent, name = os.path.split(os.path.abspath(os.fsencode(path)))
    try:
        where = os.path.join(os.path.realpath(parent, strict=True), name)
        if mounted_at(where) != FSTYPE:
            return False
        mounts.umount(where, mounts.MNT_DETACH | mounts.UMOUNT_NOFOLLOW)
    except OSError:
        return False
    log.warning("%s: the mount of a server that has died is taken away", path)
    return True


def _is_below(path: bytes, directory: bytes) -> bool:
    return path.startswith(directory.rstrip(b"/") + b"/")
