"""UNMOUNT, as the kernel has it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from farwatch.abi.inotify import parse
from farwatch.client.fsnotify import Fsnotify
from farwatch.events import Mask
from farwatch.linux import mounts
from farwatch.linux.inotify import IN_ONESHOT, Inotify
from tests.client.fsnotify.facts import DIRECTORY, heard

MASKS = (Mask.OPEN, Mask.OPEN | IN_ONESHOT, IN_ONESHOT)


@pytest.mark.root
@pytest.mark.parametrize("mask", MASKS)
def test_unmount_as_the_kernel_has_it(mask: int, tmp_path: Path) -> None:
    core = Fsnotify()
    group = core.group()
    with Inotify() as real, mounted(tmp_path) as unmount:
        assert real.add(tmp_path, mask) == group.add_watch(DIRECTORY, mask, is_dir=True)
        unmount()
        core.unmount()
        buffer = bytearray(4096)
        events = parse(bytes(buffer[: real.read(buffer)]))
    assert [(event.wd, event.mask, event.name) for event in events] == heard(group)


@contextlib.contextmanager
def mounted(place: Path) -> Iterator[Callable[[], None]]:
    """A new tmpfs there; gives what unmounts it."""
    mounts.mount(b"none", bytes(place), b"tmpfs")
    with contextlib.ExitStack() as stack:
        stack.callback(mounts.umount, bytes(place))
        yield stack.close
