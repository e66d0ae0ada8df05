"""The options of a mount as mount(8) and fstab(5) write them: ``ro,nosuid,cache=auto``.

How they are read:

names      separated by commas; a value that holds a comma stands in double quotes
repeated   the last one counts
flags      of MNT, as in mount(8); where none is named, MNT has those of the mount that
           SRC is on, as a bind mount has
for fstab  noauto, nofail, x-systemd.…: for whoever reads fstab, nothing to this program
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import Any, NamedTuple

from farwatch.abi.fsnotify import Dialect
from farwatch.linux import mounts
from farwatch.serving.refused import Refused
from farwatch.session.settings import DIALECTS, SPOKEN, Cache


class Events(Enum):
    """Where remote changes are heard of.

    ``AUTO`` is whatever this process and the file system of SRC allow, ``NONE`` nothing:
    then only what is done through MNT raises events there.
    """

    AUTO = "auto"
    FANOTIFY = "fanotify"
    INOTIFY = "inotify"
    NONE = "none"


class Options(NamedTuple):
    """What is asked of one mount.

    ``attributes``    MOUNT_ATTR_… bits that MNT shall have
    ``named``         the bits about which something was said, be it yes or no
    ``synchronous``   a write is on the disk when it returns (``sync``)
    ``allow_other``   it was asked for that others may use MNT; root's mount is for everybody
    ``auto_unmount``  MNT goes when its server dies, also if nobody is left to see to it
    ``remount``       no mount is made; one that exists gets these flags
    ``fsnotify``      the dialects in which the kernel may keep its own marks
    ``log_file``      where messages go; None: to standard error
    """

    attributes: int = 0
    named: int = 0
    synchronous: bool = False
    allow_other: bool = False
    auto_unmount: bool = False
    remount: bool = False
    cache: Cache = Cache.COHERENT
    events: Events = Events.AUTO
    fsnotify: frozenset[Dialect] = DIALECTS
    log_file: str | None = None

    def over(self, inherited: int) -> int:
        """The MOUNT_ATTR_… bits of MNT, where those of SRC's mount are ``inherited``."""
        return inherited & ~self.named | self.attributes


DEFAULTS = Options()
"""Nothing is asked for."""


def parse(text: str, *, is_sloppy: bool = False) -> Options:
    """The options in what stands behind one ``-o``, or in several joined by commas.

    Raises Refused for one that is unknown, unless ``is_sloppy`` (``mount -s``), or whose
    value is none.
    """
    options = Options()
    written = list(_split(text))
    ignored = _FOR_OTHERS | _SHOWN if "remount" in written else _FOR_OTHERS
    for option in written:
        name, equals, value = option.partition("=")
        value = value.strip('"')
        if name in _BITS and (not equals or name == "user"):
            options = _with_bits(options, name)
        elif name in _SWITCHES and not equals:
            field, state = _SWITCHES[name]
            changed: dict[str, Any] = {field: state}
            options = options._replace(**changed)
        elif name in _VALUES:
            options = options._replace(**_value(name, value))
        elif name not in ignored and not name.startswith(("x-", "X-")) and not is_sloppy:
            raise Refused(
                "unknown mount option", option, "farwatch mount --help names those that there are"
            )
    return options


_OPTION = re.compile(r'(?:[^,"]|"[^"]*(?:"|$))+')


def _split(text: str) -> Iterator[str]:
    return (found[0] for found in _OPTION.finditer(text))


def _with_bits(options: Options, name: str) -> Options:
    mask, bits = _BITS[name]
    return options._replace(
        attributes=options.attributes & ~mask | bits, named=options.named | mask
    )


def _value(name: str, value: str) -> dict[str, Any]:
    """The field that an option with a value sets.  Raises Refused."""
    if name == "log_file" and value:
        return {name: value}
    choices = _VALUES[name]
    if value not in choices:
        said = f"{name}={value}" if value else name
        wanted = ", ".join(f"{name}={choice}" for choice in choices) or f"{name}=FILE"
        raise Refused("not a value of this mount option", said, f"write {wanted}")
    return {name: choices[value]}


_SECURE = mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NODEV
_RESTRICTED = _SECURE | mounts.MOUNT_ATTR_NOEXEC


def _flag(name: str, opposite: str, bit: int) -> dict[str, tuple[int, int]]:
    return {name: (bit, bit), opposite: (bit, 0)}


_BITS: dict[str, tuple[int, int]] = {
    **_flag("ro", "rw", mounts.MOUNT_ATTR_RDONLY),
    **_flag("nosuid", "suid", mounts.MOUNT_ATTR_NOSUID),
    **_flag("nodev", "dev", mounts.MOUNT_ATTR_NODEV),
    **_flag("noexec", "exec", mounts.MOUNT_ATTR_NOEXEC),
    **_flag("nosymfollow", "symfollow", mounts.MOUNT_ATTR_NOSYMFOLLOW),
    **_flag("nodiratime", "diratime", mounts.MOUNT_ATTR_NODIRATIME),
    **_flag("noatime", "atime", mounts.MOUNT_ATTR_ATIME)
    | {"noatime": (mounts.MOUNT_ATTR_ATIME, mounts.MOUNT_ATTR_NOATIME)},
    "relatime": (mounts.MOUNT_ATTR_ATIME, 0),
    "nostrictatime": (mounts.MOUNT_ATTR_ATIME, 0),
    "strictatime": (mounts.MOUNT_ATTR_ATIME, mounts.MOUNT_ATTR_STRICTATIME),
    # mount(8): these imply the others, unless something else is said behind them.
    "user": (_RESTRICTED, _RESTRICTED),
    "users": (_RESTRICTED, _RESTRICTED),
    "owner": (_SECURE, _SECURE),
    "group": (_SECURE, _SECURE),
}
"""What an option says about: these bits, of which those are to be set."""

_SWITCHES: dict[str, tuple[str, bool]] = {
    "allow_other": ("allow_other", True),
    "auto_unmount": ("auto_unmount", True),
    "remount": ("remount", True),
    "sync": ("synchronous", True),
    "async": ("synchronous", False),
}

_VALUES: dict[str, dict[str, object]] = {
    "cache": {cache.value: cache for cache in Cache},
    "events": {events.value: events for events in Events},
    "fsnotify": dict(SPOKEN),
    "log_file": {},
}

# fmt: off
_FOR_OTHERS = frozenset((
    "defaults", "auto", "noauto", "nofail", "nouser", "nousers", "noowner", "nogroup",
    "_netdev", "comment", "norelatime", "silent", "loud", "lazytime", "nolazytime",
    "iversion", "noiversion", "nomand", "default_permissions", "nonempty",
))
# fmt: on
"""What changes nothing here: instructions to others, and what is so anyway.

Permissions are always checked by the kernel (``default_permissions``); times are kept by the
file system of SRC, lazily or not.
"""

_SHOWN = frozenset(("user_id", "group_id", "rootmode", "max_read", "blksize", "seclabel"))
"""What /proc/mounts shows of FUSE's own, and mount(8) therefore repeats with ``remount``."""
