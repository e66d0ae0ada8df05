"""Which processes keep a mount busy."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from farwatch.linux.mounts import MountInfo

_AGENTS = frozenset((b"farwatch.agent", b"farwatch-agent.pyz"))
"""The module that `farwatch mount` starts, and the file that it is as well."""
_AGENT_COMMAND = (b"farwatch", b"agent")
_MOUNT_ID = re.compile(r"^mnt_id:\s*(\d+)$", re.MULTILINE)


class Occupant(NamedTuple):
    """A process and what it does there: ``working directory``, ``open file x``, …

    ``is_agent`` is set for an agent of farwatch's.
    """

    pid: int
    command: str
    how: str
    is_agent: bool = False


def occupants(mount: MountInfo, proc: Path = Path("/proc")) -> list[Occupant]:
    """Every process that this one may look at and that uses ``mount``, one entry each.

    Nothing is opened or stat'ed on the mount itself: its server may be dead.
    """
    found = []
    for entry in sorted(proc.iterdir(), key=lambda path: path.name):
        if not entry.name.isdecimal():
            continue
        # A process may end, or belong to somebody else, while it is looked at.
        with suppress(OSError):
            how = next(_uses(entry, mount), None)
            if how is not None:
                command = (entry / "comm").read_text(errors="replace").strip()
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
                found.append(Occupant(int(entry.name), command, how, is_agent(arguments)))
    return found


def is_agent(arguments: Sequence[bytes]) -> bool:
    """Whether a process that was started so is an agent, by whichever of its names."""
    names = [os.path.basename(argument) for argument in arguments]
    return not _AGENTS.isdisjoint(names) or _AGENT_COMMAND in pairwise(names)


def _uses(process: Path, mount: MountInfo) -> Iterator[str]:
    for link, how in (("cwd", "working directory"), ("root", "root directory")):
        if _is_below(os.readlink(process / link), mount.mount_point):
            yield how
    for entry in (process / "fdinfo").iterdir():
        with suppress(OSError):
            number = _MOUNT_ID.search(entry.read_text())
            if number and int(number[1]) == mount.mount_id:
                yield f"open file {os.readlink(process / 'fd' / entry.name)}"
    for line in (process / "maps").read_bytes().split(b"\n"):
        # address permissions offset device inode path
        fields = line.split(None, 5)
        if len(fields) == 6 and _is_below(os.fsdecode(fields[5]), mount.mount_point):
            yield f"mapped file {os.fsdecode(fields[5])}"


def _is_below(path: str, top: bytes) -> bool:
    encoded = os.fsencode(path)
    return encoded == top or encoded.startswith(top.rstrip(b"/") + b"/")
