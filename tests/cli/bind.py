"""A mount that needs no farwatch: a bind mount, whose watchers hear what the source's hear."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from farwatch.linux.mounts import MNT_DETACH, MS_BIND, mount, umount


@contextmanager
def bind_mount(source: Path, mountpoint: Path) -> Iterator[None]:
    """``source`` on ``mountpoint`` until the block ends."""
    mount(os.fsencode(source), os.fsencode(mountpoint), None, MS_BIND)
    try:
        yield
    finally:
        umount(os.fsencode(mountpoint), MNT_DETACH)
