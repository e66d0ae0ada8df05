"""The demo's directories and its mount, which are gone when it ends."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from farwatch.cli.demo.changes import WATCHED, prepare
from farwatch.cli.demo.interrupts import Interrupts
from farwatch.cli.demo.observer import Observer, observing
from farwatch.cli.failure import Failure
from farwatch.linux.mounts import MNT_DETACH, parse_mountinfo, umount

MOUNT_SECONDS = 30.0
"""How long a mount may take to begin or to end.  Only a failure takes that long."""

SECOND_PLACE = Path("/dev/shm")
"""A tmpfs.  A container's temporary directory is often on overlayfs, which cannot be a source."""

Mounter = Callable[[Path, Path], AbstractContextManager[None]]


class Side(NamedTuple):
    """A directory in which changes are made, and a watcher of the same tree."""

    top: Path
    observer: Observer


class Stage(NamedTuple):
    """What the demo compares."""

    plain: Side
    """Changed and watched in the same directory."""
    behind: Side
    """Changed in SRC, watched in MNT."""


@contextmanager
def farwatch_mount(source: Path, mountpoint: Path, *options: str) -> Iterator[None]:
    """Run ``farwatch mount`` until the block ends.  Failure with its own words if it cannot."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "farwatch", "mount", *options, source, mountpoint],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        with process:
            try:
                _wait_until_ready(process, log)
                yield
            finally:
                _end(process, mountpoint)


def _wait_until_ready(process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], MOUNT_SECONDS)[0]:
        raise Failure("farwatch mount did not become ready", f"{MOUNT_SECONDS:.0f} seconds")
    if process.stdout.readline():
        return
    process.wait()
    log.seek(0)
    words = log.read().decode(errors="replace").strip().splitlines() or ["farwatch mount failed"]
    raise Failure(words[-1].removeprefix("farwatch: "))


def _end(process: subprocess.Popen[bytes], mountpoint: Path) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(MOUNT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    # Whatever became of the process: what follows removes the directories.
    while _is_mounted(mountpoint):
        umount(os.fsencode(mountpoint), MNT_DETACH)


def _is_mounted(path: Path) -> bool:
    text = Path("/proc/self/mountinfo").read_bytes()
    return any(entry.mount_point == os.fsencode(path) for entry in parse_mountinfo(text))


@contextmanager
def staged(interrupts: Interrupts, mounter: Mounter = farwatch_mount) -> Iterator[Stage]:
    """Set everything up, and take everything down whatever happens in the block.

    Failure if SRC cannot be mounted on MNT.
    """
    stack = ExitStack()
    try:
        with interrupts.held():
            stage = _set_up(stack, mounter)
        yield stage
    finally:
        with interrupts.held():
            stack.close()


def _set_up(stack: ExitStack, mounter: Mounter) -> Stage:
    """The stage in the first place that can be mounted from; else the first place's Failure."""
    refusals = []
    for place in (Path(tempfile.gettempdir()), SECOND_PLACE):
        with ExitStack() as attempt:
            try:
                stage = _set_up_in(place, attempt, mounter)
            except Failure as refusal:
                refusals.append(refusal)
                continue
            stack.push(attempt.pop_all())
            return stage
    raise refusals[0]


def _set_up_in(place: Path, stack: ExitStack, mounter: Mounter) -> Stage:
    base = Path(tempfile.mkdtemp(prefix="farwatch-demo-", dir=place)).resolve()
    stack.callback(shutil.rmtree, base)
    plain, source, mountpoint = base / "plain", base / "src", base / "mnt"
    for directory in (plain, source, mountpoint):
        directory.mkdir()
    for top in (plain, source):
        prepare(top)
    stack.enter_context(mounter(source, mountpoint))
    return Stage(
        Side(plain, stack.enter_context(observing(plain, WATCHED))),
        Side(source, stack.enter_context(observing(mountpoint, WATCHED))),
    )
