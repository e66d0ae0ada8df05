"""Random sequences of operations for ``Both``."""

from __future__ import annotations

import os
import random

from hypothesis import strategies as st

from farwatch.linux.inotify import (
    IN_DONT_FOLLOW,
    IN_EXCL_UNLINK,
    IN_MASK_ADD,
    IN_MASK_CREATE,
    IN_ONESHOT,
    IN_ONLYDIR,
)
from tests.client.fsnotify.both import Operation

GROUPS = 3
SLOTS = 3
PATHS = (b"a", b"b", b"c", b"d", b"e", b"d/a", b"d/b", b"d/e", b"e/a", b"e/d", b"d/e/a")
WATCHED = (b"", b"", b"", *PATHS)
SOME = (
    0x001,
    0x002,
    0x004,
    0x00C,
    0x018,
    0x020,
    0x040,
    0x080,
    0x0C0,
    0x100,
    0x200,
    0x300,
    0x400,
    0x800,
    0xC00,
    *[0xFFF] * 12,
)
FLAGS = (
    IN_ONESHOT,
    IN_EXCL_UNLINK,
    IN_EXCL_UNLINK,
    IN_EXCL_UNLINK,
    IN_MASK_ADD,
    IN_MASK_CREATE,
    IN_ONLYDIR,
    IN_DONT_FOLLOW,
    0x40000000,
    0x2000,
    0x1000,
)
OPEN = (
    os.O_CREAT | os.O_RDWR,
    os.O_CREAT | os.O_WRONLY,
    os.O_CREAT | os.O_EXCL | os.O_RDWR,
    os.O_RDONLY,
    os.O_RDONLY,
    os.O_WRONLY,
)

paths = st.sampled_from(PATHS)
watched = st.sampled_from(WATCHED)
groups = st.integers(0, GROUPS - 1)
slots = st.integers(0, SLOTS - 1)
masks = st.builds(
    lambda kinds, flags: kinds | sum({*flags}),
    st.one_of(st.sampled_from(SOME), st.integers(0, 0xFFF)),
    st.lists(st.sampled_from(FLAGS), max_size=2),
)


def _operation(name: str, *arguments: st.SearchStrategy[object]) -> st.SearchStrategy[Operation]:
    return st.tuples(st.just(name), *arguments)


operation: st.SearchStrategy[Operation] = st.one_of(
    _operation("add_watch", groups, watched, masks),
    _operation("add_watch", groups, watched, masks),
    _operation("rm_watch", groups, st.integers(1, 6)),
    _operation("read", groups),
    _operation("open", slots, paths, st.sampled_from(OPEN)),
    _operation("open", slots, paths, st.sampled_from(OPEN)),
    _operation("close", slots),
    _operation("through", slots, st.sampled_from(["read", "write", "fchmod"])),
    _operation("through", slots, st.just("ftruncate"), st.integers(0, 2)),
    _operation("at", st.sampled_from(["mkdir", "unlink", "rmdir", "chmod"]), paths),
    _operation("at", st.sampled_from(["mkdir", "unlink", "rmdir", "chmod"]), watched),
    _operation("at", st.just("truncate"), paths, st.integers(0, 2)),
    _operation("at", st.just("link"), paths, paths),
    _operation("rename", paths, paths, st.booleans()),
    _operation("rename", paths, paths, st.just(False)),
)

PREPARED: list[Operation] = [
    ("at", "mkdir", b"d"),
    ("at", "mkdir", b"e"),
    ("at", "mkdir", b"d/e"),
    ("open", 0, b"a", os.O_CREAT | os.O_RDWR),
    ("open", 1, b"d/a", os.O_CREAT | os.O_RDWR),
    ("open", 2, b"d/b", os.O_CREAT | os.O_WRONLY),
]
"""Something to begin with, so that most operations succeed."""

sequences = st.lists(operation, min_size=1, max_size=60)


def seeded(seed: int, size: int) -> list[Operation]:
    """A long sequence that depends on a number alone."""
    rng = random.Random(seed)

    def mask() -> int:
        kinds = rng.choice((rng.choice(SOME), rng.choice(SOME), rng.randrange(0x1000)))
        return kinds | sum({*rng.choices(FLAGS, k=rng.choice((0, 0, 1, 2)))})

    places = rng.choice((PATHS, PATHS[:5]))

    def path() -> bytes:
        return rng.choice(places)

    def watch() -> Operation:
        return ("add_watch", rng.randrange(GROUPS), rng.choice(WATCHED), mask())

    def through() -> Operation:
        name = rng.choice(("read", "write", "fchmod", "ftruncate"))
        return ("through", rng.randrange(SLOTS), name, *([1] if name == "ftruncate" else []))

    makers = (
        watch,
        watch,
        through,
        through,
        lambda: ("open", rng.randrange(SLOTS), path(), rng.choice(OPEN)),
        lambda: ("rm_watch", rng.randrange(GROUPS), rng.randrange(1, 40)),
        lambda: ("read", rng.randrange(GROUPS)),
        lambda: ("close", rng.randrange(SLOTS)),
        lambda: ("at", rng.choice(("mkdir", "rmdir", "chmod")), path()),
        lambda: ("at", "unlink", path()),
        lambda: ("at", "truncate", path(), rng.randrange(3)),
        lambda: ("at", "link", path(), path()),
        lambda: ("rename", path(), path(), rng.random() < 0.3),
    )
    return [rng.choice(makers)() for _ in range(size)]


def masked(operations: list[Operation], *, drop: int, add: int = 0) -> list[Operation]:
    """The same with other bits in the masks of all watches."""
    return [
        (name, *rest[:-1], rest[-1] & ~drop | add) if name == "add_watch" else (name, *rest)
        for name, *rest in operations
    ]
