"""One sequence of operations, done on a disk under real inotify and in memory under the core."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from farwatch.client.fsnotify import Fsnotify
from farwatch.client.fsnotify.masks import asked
from farwatch.events import Mask
from tests.client.fsnotify.disk import Disk
from tests.client.fsnotify.vfs import OpenFile, Vfs
from tests.client.fsnotify.wire import Wire

Operation = tuple[Any, ...]
"""The name of a method of ``Both`` and its arguments."""
Heard = tuple[int, int, int, bytes]
"""wd, mask, cookie, name."""


class Unequal(AssertionError):
    """The core is not what the kernel is."""


class Both:
    """The two, side by side; use as a context manager.

    A ``slot`` is a place for an open file; operations on an empty one do nothing.
    """

    def __init__(self, root: Path, groups: int, *, wire: Callable[[Fsnotify], Wire] = Wire) -> None:
        self._disk = Disk(root, groups)
        self._core = Fsnotify()
        self._wire = wire(self._core)
        self._vfs = Vfs(self._wire)
        self._groups = [self._core.group() for _ in range(groups)]
        self._open: dict[int, tuple[int, OpenFile]] = {}
        self._cookies = {0: 0}
        self._ours = {0}
        self.compared = 0
        """Events that were equal until now."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for fd, _opened in self._open.values():
            os.close(fd)
        self._disk.__exit__()

    def run(self, operations: list[Operation]) -> None:
        """Do everything, close everything, and compare what was heard until then."""
        for name, *arguments in operations:
            getattr(self, name)(*arguments)
        for slot in tuple(self._open):
            self.close(slot)
        for group in range(len(self._groups)):
            self.read(group)

    def open(self, slot: int, path: bytes, flags: int) -> None:
        self.close(slot)
        real = _outcome(lambda: self._disk.open(path, flags))
        modelled = _outcome(lambda: self._vfs.open(path, flags))
        if isinstance(real, int) and isinstance(modelled, OpenFile):
            self._open[slot] = (real, modelled)
        else:
            _compare("open", real, modelled)

    def close(self, slot: int) -> None:
        if slot in self._open:
            fd, opened = self._open.pop(slot)
            self._disk.close(fd)
            self._vfs.close(opened)

    def through(self, slot: int, name: str, *arguments: int) -> None:
        """read, write, ftruncate or fchmod of an open file."""
        if slot in self._open:
            fd, opened = self._open[slot]
            self._same(
                name,
                lambda: getattr(self._disk, name)(fd, *arguments),
                lambda: getattr(self._vfs, name)(opened, *arguments),
            )

    def at(self, name: str, *arguments: Any) -> None:
        """Any operation by path."""
        self._same(
            name,
            lambda: getattr(self._disk, name)(*arguments),
            lambda: getattr(self._vfs, name)(*arguments),
        )

    def rename(self, path: bytes, new: bytes, exchange: bool) -> None:
        self._same(
            "rename",
            lambda: self._disk.rename(path, new, exchange=exchange),
            lambda: self._vfs.rename(path, new, exchange=exchange),
        )

    def add_watch(self, group: int, path: bytes, mask: int) -> None:
        """Watch the same path with both."""

        def modelled() -> int:
            asked(mask)
            inode = self._vfs.node(path)
            return self._groups[group].add_watch(
                inode.id, mask, is_dir=inode.is_dir, after=self._wire.sequence
            )

        real = _outcome(lambda: self._disk.add_watch(group, path, mask))
        ours = _outcome(modelled)
        if isinstance(real, OSError) and isinstance(ours, OSError):
            same = real.errno == ours.errno
        else:
            same = real == ours
        if not same:
            raise Unequal(f"add_watch {path!r} {mask:#x}: {real!r}, core {ours!r}")

    def rm_watch(self, group: int, wd: int) -> None:
        self._same(
            "rm_watch",
            lambda: self._disk.rm_watch(group, wd),
            lambda: self._groups[group].rm_watch(wd),
        )

    def read(self, group: int) -> None:
        """Read all that waits, and compare."""
        self._wire.deliver()
        real: list[Heard] = [
            (event.wd, event.mask, event.cookie, event.name) for event in self._disk.heard(group)
        ]
        ours: list[Heard] = [event[:4] for event in self._groups[group].read()]
        for one, other in zip(real, ours, strict=False):
            self._pair(one[2], other[2])
        told = [(*one[:2], self._cookies.get(one[2], -1), one[3]) for one in real]
        if told != ours:
            raise Unequal(_beside(told, ours))
        self.compared += len(ours)

    def _pair(self, real: int, ours: int) -> None:
        """A cookie of the kernel's belongs to one of the core's for good."""
        if bool(real) == bool(ours) and ours not in self._ours:
            self._ours.add(ours)
            self._cookies.setdefault(real, ours)

    def _same(self, what: str, real: Callable[[], object], ours: Callable[[], object]) -> None:
        _compare(what, _outcome(real), _outcome(ours))


def _outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except OSError as error:
        return error


def _compare(what: str, real: object, ours: object) -> None:
    if isinstance(real, OSError) != isinstance(ours, OSError):
        raise Unequal(f"{what}: {real!r}, core {ours!r}")


def _beside(real: list[Heard], ours: list[Heard]) -> str:
    lines = ["kernel | core"]
    for one, other in itertools.zip_longest(real, ours):
        lines.append(f"{'  ' if one == other else '! '}{_show(one)} | {_show(other)}")
    return "\n".join(lines)


def _show(event: Heard | None) -> str:
    if event is None:
        return "-"
    wd, mask, cookie, name = event
    return f"{wd} {Mask(mask)!s} {cookie} {name!r}"
