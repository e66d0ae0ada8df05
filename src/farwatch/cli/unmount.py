"""``farwatch unmount``: ends a mount, or says who is in the way."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import click

from farwatch.cli.failure import Failure
from farwatch.cli.occupants import Occupant, occupants
from farwatch.linux import fusermount
from farwatch.linux.mounts import (
    MNT_DETACH,
    UMOUNT_NOFOLLOW,
    MountInfo,
    parse_mountinfo,
    topmost,
    umount,
)
from farwatch.transports.devfuse import FSTYPE

_AGENT_SECONDS = 5.0
_NOBODY_SECONDS = 1.0
"""How long to try again while nobody is seen to use it: most users are there for a moment, and
gone when they are looked for."""
_PAUSE_SECONDS = 0.05


@click.command()
@click.argument("mountpoint", metavar="MNT", type=click.Path(path_type=Path))
@click.option(
    "--lazy",
    is_flag=True,
    help="Take it out of the tree now, and let go when its last user does.",
)
def unmount(mountpoint: Path, lazy: bool) -> None:
    """Unmount the farwatch mount on MNT.

    Its server and its agent end with it.  If the mount is in use it stays, and
    the message names the processes.
    """
    mounts = parse_mountinfo(Path("/proc/self/mountinfo").read_bytes())
    mount = find(mountpoint, mounts)
    flags = UMOUNT_NOFOLLOW | (MNT_DETACH if lazy else 0)
    began = time.monotonic()
    while True:
        try:
            _umount(mount.mount_point, flags)
        except OSError as error:
            if error.errno != errno.EBUSY or _below(mount, mounts):
                raise _refusal(error, mount, mounts, ()) from error
            users = occupants(mount)
            if time.monotonic() > began + _patience(users):
                raise _refusal(error, mount, mounts, users) from error
            if os.geteuid() != 0:
                _have_let_go(users)
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def _umount(target: bytes, flags: int) -> None:
    if os.geteuid() == 0:
        umount(target, flags)
    else:
        fusermount.unmount(target, lazy=bool(flags & MNT_DETACH))


def _have_let_go(agents: Sequence[Occupant]) -> None:
    """An ordinary user's agent may have nothing but the mount itself to work in.

    It is not replaced at once when it ends in this way.
    """
    for agent in agents:
        with suppress(ProcessLookupError):
            os.kill(agent.pid, signal.SIGTERM)


def _patience(users: Sequence[Occupant]) -> float:
    """Seconds after which those who are in the way will not let go by themselves.

    For a listener that is told of paths the agent has files open in the mount that the client
    sees, until it finds that the listener has left.
    """
    if not users:
        return _NOBODY_SECONDS
    return _AGENT_SECONDS if all(user.is_agent for user in users) else 0.0


def _below(mount: MountInfo, mounts: Sequence[MountInfo]) -> list[str]:
    return [os.fsdecode(each.mount_point) for each in mounts if each.parent_id == mount.mount_id]


def find(path: Path, mounts: Sequence[MountInfo]) -> MountInfo:
    """The farwatch mount that is on top at ``path``.

    Raises Failure if there is none, or if another mount covers it.
    """
    mount = topmost(resolve(path, mounts), mounts)
    if mount is None:
        raise Failure("not a farwatch mount", path, "nothing is mounted there")
    if mount.fstype == FSTYPE:
        return mount
    below = [other for other in mounts if other.mount_point == mount.mount_point]
    kind = os.fsdecode(mount.fstype)
    if any(other.fstype == FSTYPE for other in below):
        raise Failure(f"covered by another mount ({kind})", path, "unmount that first")
    raise Failure("not a farwatch mount", path, f"{kind} is mounted there")


def resolve(path: Path, mounts: Sequence[MountInfo]) -> bytes:
    """``path`` as mountinfo would write it, without touching a mount that may not answer.

    Only the parent's links are resolved as long as that names a mount point;
    the last component may be a link too.
    """
    last = path.name
    if last not in ("", ".."):
        candidate = os.fsencode(Path(os.path.realpath(path.parent)) / last)
        if any(mount.mount_point == candidate for mount in mounts):
            return candidate
    return os.fsencode(os.path.realpath(path))


def _refusal(
    error: OSError, mount: MountInfo, mounts: Sequence[MountInfo], users: Sequence[Occupant]
) -> Failure:
    where = os.fsdecode(mount.mount_point)
    if error.errno == errno.EPERM:
        return Failure("only root and who has mounted it may unmount", where, "try again with sudo")
    if error.errno != errno.EBUSY:
        return Failure(f"cannot unmount ({os.strerror(error.errno or 0)})", where)
    if below := _below(mount, mounts):
        return Failure("something is mounted below it", ", ".join(below), "unmount that first")
    named = ", ".join(f"{user.command} (pid {user.pid}: {user.how})" for user in users[:5])
    more = f" and {len(users) - 5} more" if len(users) > 5 else ""
    return Failure(
        f"in use by {named}{more}" if users else "in use",
        where,
        "end that use, or detach the mount with --lazy",
    )
