"""``mount.farwatch``: what mount(8) calls for ``mount -t farwatch`` and for lines of fstab.

    mount.farwatch SRC MNT [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]

It returns when remote changes are delivered; the mount goes on in the background.  Where it
is installed as /sbin/mount.farwatch a line of /etc/fstab is

    /srv/data  /mnt/data  farwatch  ro,nosuid,nofail  0  0

and as /sbin/mount.fuse.farwatch it also does ``mount -o remount,ro /mnt/data``, since the
kernel calls the type fuse.farwatch.
"""

from __future__ import annotations

import getopt
import os
import sys
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple, NoReturn

from farwatch import __version__
from farwatch.cli.app import unexpected
from farwatch.cli.failure import Failure, printable
from farwatch.cli.mount import mount_with
from farwatch.mounting.checks import check
from farwatch.mounting.options import Options, parse
from farwatch.serving.refused import Refused

_NAME = "mount.farwatch"
_USAGE = f"""\
Usage: {_NAME} SRC MNT [-sfnv] [-o OPTIONS] [-t TYPE]

Called by mount(8): mount -t farwatch SRC MNT.  The options are those that
farwatch mount --help names.

  -s  take no notice of options that are unknown
  -f  only see whether it could be mounted
  -n  is the same as without
  -v  say when it is mounted
"""


class Status(IntEnum):
    """The exit status, as mount(8) names them."""

    MOUNTED = 0
    USAGE = 1
    INTERRUPTED = 8
    FAILED = 32


class _Wrong(Exception):
    """Wrong usage."""


class _Call(NamedTuple):
    """One call of mount(8)'s."""

    source: str
    target: str
    options: Options
    is_fake: bool
    is_verbose: bool


def main() -> NoReturn:
    """Run with the arguments of this process, and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Do as mount(8) asks; the exit status."""
    try:
        if {"-h", "--help", "-V", "--version"} & set(arguments):
            is_help = bool({"-h", "--help"} & set(arguments))
            sys.stdout.write(_USAGE if is_help else f"{_NAME} {__version__}\n")
            return Status.MOUNTED
        return _do(_read(arguments))
    except _Wrong as wrong:
        return _say(f"{wrong}; try {_NAME} --help", Status.USAGE)
    except Refused as refused:
        return _say(str(Failure(refused.what, refused.where, refused.remedy)), Status.FAILED)
    except Failure as failure:
        return _say(str(failure), Status.FAILED)
    except KeyboardInterrupt:
        return Status.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last resort; mount(8) shows what is said here
        return _say(unexpected(error), Status.FAILED)


def _read(arguments: Sequence[str]) -> _Call:
    """Raises _Wrong, Refused."""
    try:
        found, words = getopt.gnu_getopt(list(arguments), "sfnvo:t:N:")
    except getopt.GetoptError as error:
        raise _Wrong(error.msg) from None
    if len(words) != 2:
        raise _Wrong("SRC and MNT are needed, and nothing else")
    flags = {name for name, _ in found}
    if "-N" in flags:
        raise _Wrong("it cannot mount in another namespace (nsenter(1) can have it run there)")
    for name, value in found:
        if name == "-t" and value not in ("farwatch", "fuse.farwatch"):
            raise _Wrong(f"not a type of file system that it mounts: {value}")
    text = ",".join(value for name, value in found if name == "-o")
    options = parse(text, is_sloppy="-s" in flags)
    return _Call(words[0], words[1], options, "-f" in flags, "-v" in flags)


def _do(call: _Call) -> int:
    if call.is_fake:
        check(call.source, call.target)
        return Status.MOUNTED
    mount_with(call.source, call.target, call.options, is_daemon=True)
    target = printable(call.target)
    if call.is_verbose and not call.options.remount:
        sys.stdout.write(f"{_NAME}: {printable(call.source)} is mounted on {target}\n")
    return Status.MOUNTED


def _say(message: str, status: Status) -> Status:
    os.write(2, f"{_NAME}: {printable(message)}\n".encode(errors="backslashreplace"))
    return status
