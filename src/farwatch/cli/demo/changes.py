"""What the demo does to a directory: an everyday sequence of changes.

Each step is one act of one program, made by ordinary system calls below a
directory ``top`` that `prepare` has filled.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

Step = Callable[[Path], None]

WATCHED = (".", "project", "project/archive", "project/old.log", "marker")
"""What the demo's watcher watches, relative to ``top``."""


class Act(NamedTuple):
    """A change that a person would name, and the steps that make it."""

    title: str
    steps: tuple[Step, ...]


def prepare(top: Path) -> None:
    """Fill an empty directory with what the changes start from."""
    for directory in ("project", "project/archive", "marker"):
        (top / directory).mkdir()
    (top / "project/old.log").write_text("started\n")


def _create(top: Path) -> None:
    (top / "project/notes").touch(exist_ok=False)


def _append(top: Path) -> None:
    with (top / "project/notes").open("a") as file:
        file.write("a line\n")


def _truncate(top: Path) -> None:
    os.truncate(top / "project/notes", 2)


def _chmod(top: Path) -> None:
    (top / "project/notes").chmod(0o600)


def _touch(top: Path) -> None:
    os.utime(top / "project/notes", (0, 0))


def _rename(top: Path) -> None:
    (top / "project/notes").rename(top / "project/report")


def _write_draft(top: Path) -> None:
    (top / "project/.report.swp").write_text("better\n")


def _replace(top: Path) -> None:
    (top / "project/.report.swp").replace(top / "project/report")


def _mkdir(top: Path) -> None:
    (top / "project/drafts").mkdir()


def _link(top: Path) -> None:
    (top / "project/copy").hardlink_to(top / "project/report")


def _symlink(top: Path) -> None:
    (top / "project/latest").symlink_to("report")


def _move(top: Path) -> None:
    (top / "project/copy").rename(top / "project/archive/copy")


def _rename_directory(top: Path) -> None:
    (top / "project/archive").rename(top / "project/attic")


def _unlink_watched(top: Path) -> None:
    (top / "project/old.log").unlink()


def _unlink_link(top: Path) -> None:
    (top / "project/attic/copy").unlink()


def _rmdir(top: Path) -> None:
    (top / "project/attic").rmdir()


ACTS = (
    Act("create a file", (_create,)),
    Act("append a line", (_append,)),
    Act("truncate it", (_truncate,)),
    Act("chmod", (_chmod,)),
    Act("set its times", (_touch,)),
    Act("rename it", (_rename,)),
    Act("an editor saves", (_write_draft, _replace)),
    Act("make a directory", (_mkdir,)),
    Act("hard link", (_link,)),
    Act("symbolic link", (_symlink,)),
    Act("move to a directory", (_move,)),
    Act("rename that directory", (_rename_directory,)),
    Act("remove a link in it", (_unlink_link,)),
    Act("remove the directory", (_rmdir,)),
    Act("remove a watched file", (_unlink_watched,)),
)
"""In the order in which the demo makes them."""


def mark(top: Path, name: str) -> None:
    """Make a name that says: everything before this is done.  No name twice.

    inotify queues are in order, so a watcher that has read this event has read
    all that came before it.
    """
    os.mknod(top / "marker" / name)
