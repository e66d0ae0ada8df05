"""The model of inotify on the disk in memory, confirmed by the kernel's own on a directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from farwatch.abi.inotify import parse
from farwatch.linux.inotify import IN_EXCL_UNLINK, IN_ONESHOT, Inotify
from tests.simulator import facts
from tests.simulator.disk import WatchedDisk
from tests.simulator.histories import OnDirectory, OnDisk, Op, ops, play
from tests.simulator.native import Native, Told, paired
from tests.simulator.random_histories import history

SETUP = ops("mkdir d; mkdir e; mkdir d/f; create a; create b; create d/a; create e/a")
WATCHED = {"": facts.ALL, "d": facts.ALL, "a": facts.ALL, "d/a": facts.ALL, "d/f": facts.ALL}
CASES = [
    "unlink a",
    "open h a r; unlink a; close h",
    "open h a w; unlink a; write h; close h",
    "open h a w; rename a c; write h; close h",
    "link a c; unlink a; unlink c",
    "open h a r; link a c; unlink a; unlink c; close h",
    "rename b a",
    "open h a w; rename b a; write h; close h",
    "rename d/a e/a; unlink e/a",
    "exchange a b",
    "exchange d e",
    "rename d/f e/f; rename e/f d/f",
    "rmdir d/f",
    "open h d/f r; rmdir d/f; close h",
    "rmdir d; unlink d/a; rmdir d/f; rmdir d",
    "open h c c; write h; close h; unlink c",
    "symlink a c; unlink c",
    "chmod a; truncate a; utime a; setxattr a",
    "open h a w; write h; write h; close h; open g a r; read g; read g; close g",
    "list d; list d/f; stat d/a",
    "create c; rename c a; create c; rename c a",
    "link a c; rename a c; unlink a",
    "rename a nowhere/x; unlink nowhere; rename d d/f/x; create a",
]
_ATTEMPTS = 3
"""Somebody else's look at a directory, just as it is removed, holds up its DELETE_SELF."""


@pytest.fixture
def disk() -> Iterator[WatchedDisk]:
    with WatchedDisk() as made:
        yield made


def on_disk(
    disk: WatchedDisk, history: list[Op], watched: dict[str, int]
) -> tuple[list[int], list[Told]]:
    with closing(OnDisk(disk, 100)) as host:
        play(host, SETUP)
        native = Native()
        for path, mask in watched.items():
            native.add(path, disk.at(path).key, mask)
        disk.listeners.append(native.hear)
        return play(host, history), list(native.told)


def on_directory(
    path: Path, history: list[Op], watched: dict[str, int]
) -> tuple[list[int], list[Told]]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with closing(OnDirectory(fd)) as program, Inotify() as inotify:
            play(program, SETUP)
            names = {inotify.add(path / name, mask): name for name, mask in watched.items()}
            errors = play(program, history)
            buffer = bytearray(1 << 20)
            try:
                size = inotify.read(buffer)
            except BlockingIOError:
                size = 0
        events = [Told(names[wd], mask, cookie, name) for wd, mask, cookie, name
                  in parse(bytes(buffer[:size]))]  # fmt: skip
        return errors, events
    finally:
        os.close(fd)


def compare(
    disk: WatchedDisk, path: Path, history: list[Op], watched: dict[str, int] = WATCHED
) -> None:
    errors, told = on_disk(disk, history, watched)
    said = [f"{op}: {bool(number)}" for op, number in zip(history, errors, strict=True)]
    heard = [*map(str, paired(told))]
    really_said: list[str] = []
    really_heard: list[str] = []
    for attempt in range(_ATTEMPTS):
        directory = path / str(attempt)
        directory.mkdir()
        errors, told = on_directory(directory, history, watched)
        really_said = [f"{op}: {bool(number)}" for op, number in zip(history, errors, strict=True)]
        really_heard = [*map(str, paired(told))]
        if (said, heard) == (really_said, really_heard):
            break
    assert said == really_said
    assert heard == really_heard


@pytest.mark.parametrize("text", CASES)
def test_the_kernel_says_the_same(disk: WatchedDisk, tmp_path: Path, text: str) -> None:
    compare(disk, tmp_path, ops(text))


@pytest.mark.parametrize("flag", [IN_EXCL_UNLINK, IN_ONESHOT], ids=["excl_unlink", "oneshot"])
@pytest.mark.parametrize("text", CASES)
def test_the_kernel_says_the_same_with_flags(
    disk: WatchedDisk, tmp_path: Path, text: str, flag: int
) -> None:
    compare(disk, tmp_path, ops(text), {path: mask | flag for path, mask in WATCHED.items()})


@pytest.mark.parametrize("seed", range(60))
def test_the_kernel_says_the_same_of_random_histories(
    disk: WatchedDisk, tmp_path: Path, seed: int
) -> None:
    compare(disk, tmp_path, history(seed, 30))
