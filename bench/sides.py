"""Where the benchmark runs: two directories of one fresh file system, one of them mounted."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from farwatch.cli.demo.interrupts import Interrupts
from farwatch.cli.demo.stage import farwatch_mount
from farwatch.linux.mounts import MNT_DETACH, umount

Mounter = Callable[[Path, Path], AbstractContextManager[None]]

IMAGE_BYTES = 4 << 30
IMAGE_INODES = 1_000_000


class Side(NamedTuple):
    """One way to reach a tree."""

    name: str
    outside: Path
    """Where others make changes."""
    inside: Path
    """Where programs watch and work."""

    def directory(self, name: str) -> tuple[Path, Path]:
        """A new, empty directory, as seen from outside and from inside."""
        (self.outside / name).mkdir()
        return self.outside / name, self.inside / name


class Sides(NamedTuple):
    """What is compared."""

    native: Side
    farwatch: Side

    def alternating(self, number: int) -> tuple[Side, Side]:
        """Both, each of them first in every other round."""
        return (self.native, self.farwatch) if number % 2 == 0 else (self.farwatch, self.native)


@contextmanager
def sides(mounter: Mounter = farwatch_mount) -> Iterator[Sides]:
    """Both sides on a new file system, which is gone afterwards."""
    stack = ExitStack()
    with Interrupts() as interrupts:
        try:
            with interrupts.held():
                made = _set_up(stack, mounter)
            yield made
        finally:
            with interrupts.held():
                stack.close()


def _set_up(stack: ExitStack, mounter: Mounter) -> Sides:
    base = Path(tempfile.mkdtemp(prefix="farwatch-bench-")).resolve()
    stack.callback(shutil.rmtree, base)
    mountpoint = base / "mnt"
    mountpoint.mkdir()
    disk = base / "disk"
    disk.mkdir()
    stack.enter_context(fresh_ext4(base / "image", disk))
    native, source = disk / "native", disk / "source"
    native.mkdir()
    source.mkdir()
    stack.enter_context(mounter(source, mountpoint))
    return Sides(Side("native", native, native), Side("farwatch", source, mountpoint))


@contextmanager
def fresh_ext4(image: Path, target: Path) -> Iterator[None]:
    """A new ext4 in a sparse file, mounted on ``target``.

    ext4 does not use a removed inode again for a minute, and searches past all
    of them: on a file system where anybody has just removed many files a
    creation takes ten times as long, natively too, which would flatter the ratio.
    """
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    # Without lazy initialisation nothing writes to the new tables while we measure.
    options = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
    _run("mkfs.ext4", "-q", "-F", "-N", str(IMAGE_INODES), "-E", options, str(image))
    _run("mount", "-o", "loop", str(image), str(target))
    try:
        yield
    finally:
        umount(bytes(target), MNT_DETACH)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
