"""What is so, by SRC, and what a program in the client is answered: they are to be equal."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import NamedTuple

from tests.stage import POLL_SECONDS


class Attributes(NamedTuple):
    """What stat tells; all but ``links`` are to be right at once.

    Link counts are told one too many while the kernel counts a link less by itself.
    """

    mode: int
    ino: int
    owner: tuple[int, int]
    size: int
    mtime: int
    ctime: int
    links: int


def attributes(path: Path) -> Attributes | str:
    """What stat tells of a path, or the errno's name."""
    try:
        status = path.lstat()
    except OSError as error:
        return os.strerror(error.errno or 0)
    return Attributes(
        status.st_mode,
        status.st_ino,
        (status.st_uid, status.st_gid),
        0 if S_ISDIR(status.st_mode) else status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_nlink,
    )


def content(path: Path) -> object:
    """Of a file its bytes, of a link its target, of a directory its names; or the errno's name.

    To read makes the kernel ask for the attributes anew: the access time is another.
    """
    try:
        mode = path.lstat().st_mode
        if S_ISREG(mode):
            return path.read_bytes()
        if S_ISLNK(mode):
            return os.readlink(path)
        return sorted(os.listdir(path)) if S_ISDIR(mode) else None
    except OSError as error:
        return os.strerror(error.errno or 0)


def warm(client: Path, paths: Sequence[str]) -> None:
    """Everything is asked for, and the attributes last, so that they are cached."""
    for ask in (content, attributes):
        for path in paths:
            ask(client / path)


def stale(source: Path, client: Path, paths: Sequence[str]) -> list[str]:
    """What stat tells wrongly of these paths, now."""
    return _different(source, client, paths, _but_links)


def differences(source: Path, client: Path, paths: Sequence[str]) -> list[str]:
    """What the client is told wrongly of these paths, now: attributes first."""
    return stale(source, client, paths) + _different(source, client, paths, content)


def _different(
    source: Path, client: Path, paths: Sequence[str], ask: Callable[[Path], object]
) -> list[str]:
    told = [ask(client / path) for path in paths]
    so = [ask(source / path) for path in paths]
    return [
        f"{path or '.'}: it is {is_so}, told is {is_told}"
        for path, is_so, is_told in zip(paths, so, told, strict=True)
        if is_so != is_told
    ]


def _but_links(path: Path) -> object:
    found = attributes(path)
    return found._replace(links=0) if isinstance(found, Attributes) else found


def wrong_links(source: Path, client: Path, paths: Sequence[str]) -> list[str]:
    """Paths of which the client is told a link count that is not so."""

    def links(path: Path) -> int:
        try:
            return path.lstat().st_nlink
        except OSError:
            return 0

    return [path for path in paths if links(source / path) != links(client / path)]


def within(seconds: float, wrong: Callable[[], list[str]]) -> float:
    """How many seconds it took until nothing was wrong; AssertionError after so many."""
    started = time.monotonic()
    while found := wrong():
        assert time.monotonic() - started < seconds, f"for {seconds} s: {found}"
        time.sleep(POLL_SECONDS)
    return time.monotonic() - started


@contextlib.contextmanager
def reading(client: Path, paths: Sequence[str], threads: int = 2) -> Iterator[None]:
    """Meanwhile programs look at these paths, as fast as they can: all is cached all the time."""
    is_over = threading.Event()

    def look(seed: int) -> None:
        chance = random.Random(seed)
        while not is_over.is_set():
            ask = attributes if seed % 2 else content
            ask(client / chance.choice(paths))

    readers = [threading.Thread(target=look, args=(seed,)) for seed in range(threads)]
    for reader in readers:
        reader.start()
    try:
        yield
    finally:
        is_over.set()
        for reader in readers:
            reader.join()
