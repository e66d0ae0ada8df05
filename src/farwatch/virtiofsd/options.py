"""What a daemon is asked to do, from what stands on its command line."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from farwatch.abi.fsnotify import Dialect
from farwatch.abi.virtio import TAG_SIZE
from farwatch.session.settings import DIALECTS, SPOKEN, Caching
from farwatch.virtiofsd.compat import Values, read_compat
from farwatch.virtiofsd.errors import BadOption
from farwatch.virtiofsd.table import BY_NAME, Effect

DAY = 86_400
"""Seconds for which virtiofsd's cache=always lets the guest believe what it has cached."""
_LEVELS = {
    "off": logging.CRITICAL + 1,
    "err": logging.ERROR,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": logging.DEBUG,
}
_CACHING = {
    "never": Caching(0, 0, direct=True),
    "none": Caching(0, 0, direct=True),
    "auto": Caching(1, 1),
    "always": Caching(1, DAY),
    "coherent": Caching(1, DAY),
    "metadata": Caching(1, DAY, direct=True),
}


@dataclass(frozen=True)
class Options:
    """What a daemon is to do.

    ``socket_path``    the socket to make, or None where ``fd`` is given
    ``fd``             a listening socket that was inherited
    ``flock``          whether the guest's flock(2) locks are taken here; ``posix_lock``: fcntl(2)'s
    ``fsnotify``       the dialects in which the guest may keep its own marks
    ``notifications``  whether a queue for them is offered
    ``posix_acl``      whether the guest goes by access control lists
    ``is_confined``    whether it lives in a mount namespace of its own
    ``rlimit_nofile``  None: as large as the system lets it be; 0: as it is
    ``log_level``      as in ``logging``
    ``notes``          a line each about options that have no effect
    """

    shared_dir: str
    socket_path: str | None = None
    socket_group: str | None = None
    fd: int | None = None
    keep: bool = False
    tag: str | None = None
    caching: Caching = _CACHING["auto"]
    readdirplus: bool = True
    xattrs: bool = False
    posix_acl: bool = False
    readonly: bool = False
    flock: bool = False
    posix_lock: bool = False
    fsnotify: frozenset[Dialect] = DIALECTS
    notifications: bool = False
    is_confined: bool = True
    rlimit_nofile: int | None = None
    syslog: bool = False
    log_level: int = logging.INFO
    daemonize: bool = False
    notes: tuple[str, ...] = ()


def read_options(separate: Mapping[str, str | bool], compat: Sequence[str] = ()) -> Options:
    """Options by their names, and what stands behind each ``-o``, which counts more.

    Raises BadOption.
    """
    values: Values = {**separate, **read_compat(compat)}
    for name, value in values.items():
        spec = BY_NAME[name]
        if spec.effect is Effect.CANNOT and value:
            raise BadOption(f"{spec.flags[-1]} is not supported: {spec.about}")
    shared_dir = _text(values, "shared_dir")
    if not shared_dir:
        raise BadOption("what to share is missing: --shared-dir=DIR or -o source=DIR")
    path, fd = _text(values, "socket_path"), _number(values, "fd")
    if path is not None and fd is not None:
        raise BadOption("--socket-path and --fd cannot both be given")
    if not path and fd is None:
        raise BadOption("the socket is missing: --socket-path=PATH or --fd=N")
    group = _text(values, "socket_group")
    if group is not None and not path:
        raise BadOption("--socket-group can only be given with --socket-path")
    mode = _text(values, "cache") or "auto"
    is_labelled = any(values.get(name, "never") != "never" for name in _IMPLY_XATTR)
    return Options(
        shared_dir=shared_dir,
        socket_path=path,
        socket_group=group,
        fd=fd,
        keep=bool(values.get("keep")),
        tag=_tag(values),
        caching=_caching(mode, values),
        # As both virtiofsds: attributes that may not be cached need not be listed.
        readdirplus=not values.get("no_readdirplus", mode in ("never", "none")),
        xattrs=bool(values.get("xattr")) or is_labelled,
        posix_acl=values.get("posix_acl", "never") != "never",
        readonly=bool(values.get("readonly")),
        flock=bool(values.get("flock")),
        posix_lock=bool(values.get("posix_lock")),
        fsnotify=SPOKEN[_text(values, "fsnotify") or "posted"],
        notifications=bool(values.get("notifications")),
        is_confined=values.get("sandbox") != "none",
        rlimit_nofile=_number(values, "rlimit_nofile"),
        syslog=bool(values.get("syslog")),
        log_level=logging.DEBUG
        if values.get("debug")
        else _LEVELS[_text(values, "log_level") or "info"],
        daemonize=bool(values.get("daemonize")),
        notes=_notes(values),
    )


_IMPLY_XATTR = ("posix_acl", "security_label")


def _caching(mode: str, values: Values) -> Caching:
    caching = _CACHING[mode]
    text = _text(values, "timeout")
    if text is None:
        return caching
    try:
        seconds = float(text)
        if not 0 <= seconds <= _LONGEST:
            raise ValueError
    except ValueError:
        raise BadOption(f"timeout={text}: not a number of seconds") from None
    return caching._replace(seconds=int(seconds), replayed=int(seconds))


_LONGEST = 1 << 30


def _tag(values: Values) -> str | None:
    tag = _text(values, "tag")
    if tag is not None and not 0 < len(tag.encode(errors="surrogateescape")) <= TAG_SIZE:
        raise BadOption(f"--tag: a tag has 1 to {TAG_SIZE} bytes")
    return tag


def _notes(values: Values) -> tuple[str, ...]:
    notes = []
    for name, value in values.items():
        spec = BY_NAME[name]
        if spec.effect is Effect.NOTHING and value and value not in spec.harmless:
            notes.append(f"{spec.flags[-1]} has no effect here: {spec.about}")
    if values.get("sandbox") == "chroot":
        notes.append("--sandbox=chroot is as namespace here: /proc is needed")
    if values.get("cache") == "coherent":
        notes.append("--cache=coherent is as always here")
    return tuple(notes)


def _text(values: Values, name: str) -> str | None:
    value = values.get(name)
    return value if isinstance(value, str) else None


def _number(values: Values, name: str) -> int | None:
    text = _text(values, name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal()) or int(text) > _LONGEST:
        raise BadOption(f"{BY_NAME[name].flags[-1]}={text}: not a number")
    return int(text)
