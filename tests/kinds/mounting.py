"""Mounts that a test makes on the host, and takes away."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path
from typing import Self

import pytest

from farwatch.linux.mounts import MNT_DETACH, MS_BIND, MS_REMOUNT, mount, umount


class Mounting:
    """Undoes all at its end, whatever is in use."""

    def __init__(self) -> None:
        self._points: list[Path] = []

    def tmpfs(self, point: Path, flags: int = 0, data: str = "") -> Path:
        """A new file system in memory."""
        point.mkdir(exist_ok=True)
        mount(b"farwatch-test", bytes(point), b"tmpfs", flags, data.encode() or None)
        self._points.append(point)
        return point

    def bind(self, source: Path, point: Path, flags: int = 0) -> Path:
        """A directory or file at one more place."""
        if source.is_dir():
            point.mkdir(exist_ok=True)
        else:
            point.touch()
        mount(bytes(source), bytes(point), None, MS_BIND)
        self._points.append(point)
        if flags:
            mount(None, bytes(point), None, MS_BIND | MS_REMOUNT | flags)
        return point

    def kernels(self, point: Path, fstype: str) -> Path:
        """One of the kernel's own."""
        mount(b"farwatch-test", bytes(point), fstype.encode())
        self._points.append(point)
        return point

    def command(self, program: str, source: Path, point: Path) -> Path:
        """A file system of FUSE, by a program that goes to the background when it is mounted."""
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here")
        point.mkdir(exist_ok=True)
        subprocess.run([program, source, point], check=True, capture_output=True)
        self._points.append(point)
        return point

    def moved(self, old: Path, new: Path) -> None:
        """The mount is known by another path."""
        self._points[self._points.index(old)] = new

    def unmount(self, point: Path, flags: int = 0) -> None:
        """OSError(EBUSY) if it is in use."""
        umount(bytes(point), flags)
        self._points.remove(point)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for point in reversed(self._points):
            with contextlib.suppress(OSError):
                umount(bytes(point), MNT_DETACH)
