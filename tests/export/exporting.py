"""Directories to export, on a disk and in memory, seen through a bind mount of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from farwatch.export.tree import Caller, Export
from farwatch.linux.mounts import MNT_DETACH, MS_BIND, MS_PRIVATE, mount, umount

ROOT = Caller(0, 0, 1)
USER = Caller(1000, 1000, 1)
"""Somebody who is in no group but the own one."""


class Stage(NamedTuple):
    """``source`` is exported; ``outside`` is beside it, on the same file system."""

    export: Export
    source: Path
    outside: Path


@contextmanager
def _mounted(
    source: bytes, target: Path, fstype: bytes | None = None, flags: int = 0
) -> Iterator[None]:
    target.mkdir()
    mount(source, os.fsencode(target), fstype, flags)
    try:
        mount(None, os.fsencode(target), None, MS_PRIVATE)
        yield
    finally:
        umount(os.fsencode(target), MNT_DETACH)


@contextmanager
def file_system(kind: str, home: Path) -> Iterator[Path]:
    """A directory on the file system of ``home`` ("disk"), or on a new "tmpfs"."""
    umask = os.umask(0)
    try:
        if kind == "disk":
            yield home
        else:
            with _mounted(b"farwatch-test", home / "memory", b"tmpfs"):
                yield home / "memory"
    finally:
        os.umask(umask)


@contextmanager
def exported(home: Path) -> Iterator[Stage]:
    """A new directory of ``home``, exported by way of a private bind mount."""
    source = home / "source"
    outside = home / "outside"
    source.mkdir(mode=0o777)
    outside.mkdir(mode=0o777)
    private = home / "private"
    with _mounted(os.fsencode(source), private, None, MS_BIND):
        fd = os.open(private, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with Export(fd) as export:
            yield Stage(export, source, outside)


def open_descriptors() -> set[str]:
    """This process's descriptors: what an operation that leaks would add to."""
    return set(os.listdir("/proc/self/fd"))
