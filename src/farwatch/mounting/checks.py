"""What must hold before a directory is mounted on another."""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

from farwatch.linux import mounts
from farwatch.serving.refused import Refused
from farwatch.transports.devfuse import FSTYPE


class Paths(NamedTuple):
    """Where from and where to, as real absolute paths."""

    source: bytes
    target: bytes


def check(source: str, target: str) -> Paths:
    """Real paths of what is to be mounted.  Raises Refused."""
    if os.geteuid() != 0:
        raise Refused("mounting needs root", remedy="run it with sudo")
    if not os.path.exists("/dev/fuse"):
        raise Refused(
            "the kernel has no FUSE here",
            "/dev/fuse",
            "load it (modprobe fuse), or give the container the device",
        )
    paths = Paths(_directory(source), _directory(target))
    if paths.source == paths.target or _is_below(paths.target, paths.source):
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


def mounted_at(path: bytes) -> bytes | None:
    """The type of the topmost file system that is mounted at a real path, if any is."""
    with open("/proc/self/mountinfo", "rb") as file:
        mount = mounts.topmost(path, mounts.parse_mountinfo(file.read()))
    return mount.fstype if mount is not None else None


def _directory(path: str) -> bytes:
    try:
        real = os.path.realpath(os.fsencode(path), strict=True)
        os.close(os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            raise Refused(
                "a dead mount is in the way", path, f"unmount it: farwatch unmount {path}"
            ) from None
        reason = {
            errno.ENOENT: "no such directory",
            errno.ENOTDIR: "not a directory",
        }.get(error.errno or 0, error.strerror or "cannot be opened")
        raise Refused(reason, path) from None
    return real


def _is_below(path: bytes, directory: bytes) -> bool:
    return path.startswith(directory.rstrip(b"/") + b"/")
