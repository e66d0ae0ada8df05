"""What must hold before a mount can have an agent."""

from __future__ import annotations

import errno
import os

from farwatch.abi.control import FIRST_UID, LAST_UID
from farwatch.agent.endings import SERVER_GONE, NotServed
from farwatch.linux import files, mounts
from farwatch.linux.credentials import (
    CAP_DAC_OVERRIDE,
    CAP_DAC_READ_SEARCH,
    CAP_FOWNER,
    CAP_SETUID,
    CAP_SYS_ADMIN,
    can_be_fsuids,
    capget,
)

_NEEDED = {
    "CAP_SYS_ADMIN": CAP_SYS_ADMIN,
    "CAP_SETUID": CAP_SETUID,
    "CAP_DAC_OVERRIDE": CAP_DAC_OVERRIDE,
    "CAP_DAC_READ_SEARCH": CAP_DAC_READ_SEARCH,
    "CAP_FOWNER": CAP_FOWNER,
}
"""To clone the mount, to mark requests, and to replay what any user has done."""
_REASONS = {
    errno.ENOENT: "no such directory",
    errno.ENOTDIR: "not a directory",
}


def check(path: bytes) -> None:
    """Raises NotServed if what is mounted at ``path`` can have no agent of this process.

    OSError if its server is found to be gone.

    Whether its server is farwatch's shows only when it is asked (``Channel.hello``).
    """
    is_root = os.geteuid() == 0
    if is_root:
        _check_privileges()
    try:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # The server may be dead: it is not asked.
            flags = files.AT_EMPTY_PATH | files.AT_STATX_DONT_SYNC
            status = files.statx(fd, flags=flags, mask=files.STATX_MNT_ID)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in SERVER_GONE:
            raise
        raise NotServed(_REASONS.get(error.errno or 0, error.strerror)) from None
    mount = _mount(status.mount_id)
    if not is_root and (mount is None or _owner(mount) != os.geteuid()):
        raise NotServed("an agent needs root, or to be whose mount it is; run it with sudo")
    if mount is None or not _has_agents(mount.fstype):
        kind = os.fsdecode(mount.fstype) if mount is not None else "something else"
        raise NotServed(f"neither virtiofs nor FUSE is mounted there; it is on {kind}")
    where = ascii(os.fsdecode(mount.mount_point))
    if not status.attributes & files.STATX_ATTR_MOUNT_ROOT:
        raise NotServed(f"not a mount point; the mount that it is in is at {where}")
    if mount.root != b"/":
        raise NotServed("only a part of its file system is mounted there; name a mount of all")


def _check_privileges() -> None:
    effective = capget().effective
    missing = [name for name, bit in _NEEDED.items() if not effective & bit]
    if missing:
        raise NotServed(f"an agent needs {', '.join(missing)}; give them to this process")
    if not can_be_fsuids(FIRST_UID, LAST_UID):
        raise NotServed("user ids cannot be changed here; run it outside of the user namespace")


def _mount(mount_id: int) -> mounts.MountInfo | None:
    with open("/proc/self/mountinfo", "rb") as file:
        entries = mounts.parse_mountinfo(file.read())
    return next((entry for entry in entries if entry.mount_id == mount_id), None)


def _has_agents(fstype: bytes) -> bool:
    return fstype in (b"virtiofs", b"fuse") or fstype.startswith(b"fuse.")


def _owner(mount: mounts.MountInfo) -> int:
    """The user whose mount it is (``user_id`` of mount.fuse(8)); -1 if none is named."""
    for option in mount.super_options.split(b","):
        name, _, value = option.partition(b"=")
        if name == b"user_id" and value.isdigit():
            return int(value)
    return -1
