"""Which processes have files open for writing: by descriptor, or mapped to be written.

What /proc says, proc_pid_fdinfo(5) and proc_pid_maps(5): nothing of other pid namespaces, nor
of descriptors on their way through a socket.  No file system is asked for anything: one may
not answer, and one may be ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from typing import NamedTuple

from farwatch.linux import files

_FLAGS, _INODE = b"flags:", b"ino:"


class Held(Enum):
    """How a process has a file open."""

    NOT = "not"
    READING = "reading"
    WRITING = "writing"


class Writer(NamedTuple):
    """A process that has a file open for writing, and a path that leads to the file."""

    process: int
    link: str


class _Open(NamedTuple):
    """One descriptor, by its fdinfo; the inode number is 0 before Linux 5.14."""

    link: str
    writes: bool
    inode: int


def held_by(process: int, device: int, inode: int) -> Held:
    """How a process has a file open, by its st_dev and st_ino.  NOT if the process is gone."""
    found = Held.NOT
    for each in _descriptors(process):
        if each.inode in (inode, 0) and _identity(each.link) == (device, inode):
            if each.writes:
                return Held.WRITING
            found = Held.READING
    # The device is not compared: the kernel's own differs from stat's on some file systems.
    is_mapped = any(mapped == inode for _, mapped in _mapped(process))
    return Held.WRITING if is_mapped else found


def writers_in(process: int, device: int) -> Iterator[Writer]:
    """What a process has open for writing in the file system with this st_dev."""
    links = [each.link for each in _descriptors(process) if each.writes]
    links += [link for link, _ in _mapped(process)]
    for link in links:
        identity = _identity(link)
        if identity is not None and identity[0] == device:
            yield Writer(process, link)


def processes() -> list[int]:
    """All but this one."""
    me = os.getpid()
    return [int(name) for name in _listed("/proc") if name.isdigit() and int(name) != me]


def _identity(link: str) -> tuple[int, int] | None:
    """The st_dev and st_ino of what a link of /proc leads to, as far as they are known."""
    with suppress(OSError):
        found = files.statx(files.AT_FDCWD, link.encode(), files.AT_STATX_DONT_SYNC)
        return found.dev, found.ino
    return None


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _descriptors(process: int) -> Iterator[_Open]:
    for number in _listed(f"/proc/{process}/fdinfo"):
        flags, inode = os.O_PATH, 0
        with suppress(OSError), open(f"/proc/{process}/fdinfo/{number}", "rb") as file:
            for line in file:
                if line.startswith(_FLAGS):
                    flags = int(line[len(_FLAGS) :], 8)
                elif line.startswith(_INODE):
                    inode = int(line[len(_INODE) :])
                    break
        if not flags & os.O_PATH:
            link = f"/proc/{process}/fd/{number}"
            yield _Open(link, bool(flags & os.O_ACCMODE), inode)


def _mapped(process: int) -> Iterator[tuple[str, int]]:
    """What a process has mapped shared and writable: a link to it, and its inode number."""
    try:
        with open(f"/proc/{process}/maps", "rb") as file:
            for line in file:
                area, permissions, _, _, inode, *_ = line.split(maxsplit=5)
                if permissions[1:2] == b"w" and permissions[3:4] == b"s" and inode != b"0":
                    yield f"/proc/{process}/map_files/{area.decode()}", int(inode)
    except (OSError, ValueError):
        return
