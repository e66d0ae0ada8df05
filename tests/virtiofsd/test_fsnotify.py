"""A guest that keeps its own marks, on a real file system: what it is told, and in which order.

The kernel's inotify in SRC is the specification.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import pytest

from farwatch.linux.files import AT_FDCWD, RENAME_EXCHANGE, renameat2
from tests.session.fsnotify.client import (
    CREATE,
    DELETE,
    LIMBO,
    LOCAL_SOURCE,
    MARK,
    MERGED,
    MODIFY,
    OPEN,
    Q_OVERFLOW,
    REMOTE,
    REMOTE_SOURCE,
    End,
    Told,
    kinds,
)
from tests.session.kernel import ROOT
from tests.virtiofsd.daemon import Area
from tests.virtiofsd.marking import Heard, Marking, Native

pytestmark = pytest.mark.root

OPTIONS = ("--notifications", "--xattr")
LAST = "the-end"
BY_QUEUE = pytest.mark.parametrize("by_queue", [True, False], ids=["queue", "take"])


@contextmanager
def guest_of(
    area: Area, *, by_queue: bool, mode: int = REMOTE, buffers: int = 8
) -> Iterator[Marking]:
    with (
        area.serving(*OPTIONS),
        Marking(str(area.socket), by_queue=by_queue, mode=mode, buffers=buffers) as guest,
    ):
        yield guest
    assert "Traceback" not in area.said()


def exchange(src: Path) -> None:
    first, second = os.fsencode(src / "f"), os.fsencode(src / "d")
    renameat2(AT_FDCWD, first, AT_FDCWD, second, RENAME_EXCHANGE)


def write(src: Path) -> Iterator[None]:
    """Step by step: what is read from a source together is merged there."""
    with (src / "f").open("wb", buffering=0) as file:
        yield
        file.write(b"content")
        yield


def read(src: Path) -> Iterator[None]:
    with (src / "f").open("rb", buffering=0) as file:
        yield
        file.read(1)
        yield


def unlink_while_open(src: Path) -> Iterator[None]:
    with (src / "f").open("r+b", buffering=0) as file:
        yield
        os.unlink(src / "f")
        yield
        file.write(b"x")
        yield


CHANGES: dict[str, Callable[[Path], object]] = {
    "create": lambda src: os.mknod(src / "new"),
    "write": write,
    "read": read,
    "open for appending": lambda src: os.close(os.open(src / "f", os.O_WRONLY | os.O_APPEND)),
    "truncate": lambda src: os.truncate(src / "f", 1),
    "chmod": lambda src: (src / "f").chmod(0o600),
    "chmod of a directory": lambda src: (src / "d").chmod(0o700),
    "xattr": lambda src: os.setxattr(src / "f", "user.x", b"1"),
    "mkdir": lambda src: (src / "made").mkdir(),
    "symlink": lambda src: (src / "to").symlink_to("f"),
    "link": lambda src: (src / "second").hardlink_to(src / "f"),
    "unlink": lambda src: (src / "f").unlink(),
    "unlink one of two": lambda src: (src / "g2").unlink(),
    "unlink while open": unlink_while_open,
    "rmdir": lambda src: (src / "d").rmdir(),
    "rename": lambda src: (src / "f").rename(src / "d" / "moved"),
    "rename of a directory": lambda src: (src / "d").rename(src / "e"),
    "rename over": lambda src: (src / "f").rename(src / "g"),
    "rename over the last name": lambda src: (src / "f").rename(src / "h"),
    "rename over a directory": lambda src: (src / "d").rename(src / "d2"),
    "exchange": exchange,
}


def furnish(src: Path) -> None:
    for name in "fgh":
        (src / name).write_bytes(b"something")
    (src / "g2").hardlink_to(src / "g")
    for name in ("d", "d2", "last"):
        (src / name).mkdir()


WATCHED = ("", "f", "g", "h", "d", "d2")


def heard_of(
    area: Area, guest: Marking, native: Native, change: Callable[[Path], object]
) -> tuple[list[Told | End], list[Heard]]:
    """What the guest is told of a change, and what the kernel tells of it."""
    native.hear()
    told: list[Told | End] = []
    for number, _ in enumerate(_steps(change(area.src))):
        (area.src / "last" / f"{number}").mkdir()
        told += guest.hear_through(f"{number}")
    return told, native.hear()


def _steps(made: object) -> Iterator[None]:
    if isinstance(made, Iterator):
        yield from made
    yield


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@BY_QUEUE
def test_in_the_kernel_s_order(
    area: Area, change: Callable[[Path], object], by_queue: bool
) -> None:
    furnish(area.src)
    with guest_of(area, by_queue=by_queue) as guest, Native(area.src) as native:
        for path in WATCHED:
            guest.mark(path)
            native.watch(path)
        guest.mark("last", CREATE)
        told, expected = heard_of(area, guest, native, change)
        assert guest.spread(told) == expected
        assert expected
        assert {each.source for each in told if isinstance(each, Told)} == {REMOTE_SOURCE}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("path", ["", "f", "d"])
def test_one_watch_alone(area: Area, change: Callable[[Path], object], path: str) -> None:
    """What nobody else's mark brings with it."""
    furnish(area.src)
    with guest_of(area, by_queue=True) as guest, Native(area.src) as native:
        guest.mark(path)
        native.watch(path)
        guest.mark("last", CREATE)
        told, expected = heard_of(area, guest, native, change)
        assert guest.spread(told) == expected


# What the guest does itself --------------------------------------------------------------


def did(guest: Marking, act: Callable[[], object], last: str = LAST) -> list[str]:
    """What the guest is told of what it does itself."""
    act()
    guest.mkdir(last)
    told = guest.hear_through(last)
    assert {each.source for each in told if isinstance(each, Told)} <= {LOCAL_SOURCE}
    return kinds(told)


def test_looking_makes_no_events(area: Area) -> None:
    furnish(area.src)
    with guest_of(area, by_queue=True) as guest:
        for path in WATCHED:
            guest.mark(path)
        node = guest.walk("f").node

        def look() -> None:
            for path in WATCHED[1:]:
                guest.getattr(guest.walk(path).node)
            guest.ask(17, ROOT)
            guest.ask(23, node, struct.pack("<II", 0, 0))

        assert did(guest, look) == []


def test_the_guest_s_own_changes_are_told_and_no_work_of_the_server_s(area: Area) -> None:
    furnish(area.src)
    with guest_of(area, by_queue=True) as guest:
        guest.mark("")
        node = guest.mark("f")
        size, mode, mtime = 1 << 3, 1 << 0, 1 << 5
        assert did(guest, lambda: guest.setattr(node, size, size=2), "1") == ["MODIFY f"]
        assert did(guest, lambda: guest.setattr(node, mode, mode=0o600), "2") == ["ATTRIB f"]
        assert did(guest, lambda: guest.setattr(node, mtime, mtime=1), "3") == ["MODIFY f"]
        assert did(guest, lambda: guest.mknod("made"), "4") == ["CREATE made"]
        assert did(guest, lambda: guest.symlink("to", b"f"), "5") == ["CREATE to"]
        assert did(guest, lambda: guest.link(node, "second"), "6") == ["ATTRIB", "CREATE second"]
        assert did(guest, lambda: guest.unlink("second"), "7") == ["ATTRIB", "DELETE second"]
        assert did(guest, lambda: guest.rename("f", "r"), "8") == ["RENAME f -> r"]
        gone = did(guest, lambda: guest.unlink("r"), "9")
        assert gone == ["ATTRIB", "DELETE_SELF", "ENDED(GONE)", "DELETE r"]


def test_the_guest_s_own_reads_and_writes_are_told(area: Area) -> None:
    furnish(area.src)
    with guest_of(area, by_queue=True) as guest:
        node = guest.mark("f")

        def use() -> None:
            opened = guest.open(node, os.O_RDWR)
            guest.read(node, opened.fh)
            guest.write(node, opened.fh, b"new")
            guest.release(node, opened.fh)

        guest.mark("")
        assert did(guest, use) == ["OPEN f", "ACCESS f", "MODIFY f", "CLOSE_WRITE f"]


def test_at_the_end_of_a_file_nothing_is_read(area: Area) -> None:
    """read(2) raises ACCESS only if it has read something."""
    furnish(area.src)
    with guest_of(area, by_queue=True) as guest:
        node = guest.mark("f")

        def use() -> None:
            opened = guest.open(node, os.O_RDONLY)
            assert guest.read(node, opened.fh, offset=1 << 20) == b""
            guest.release(node, opened.fh)

        guest.mark("", CREATE)
        assert did(guest, use) == ["OPEN", "CLOSE_NOWRITE"]


def test_the_guest_s_own_listing_is_told(area: Area) -> None:
    furnish(area.src)
    with guest_of(area, by_queue=True) as guest:
        guest.mark("d")
        guest.mark("", CREATE)
        listed = did(guest, lambda: guest.list(guest.walk("d").node))
        # A listing is read to its end, which is another ACCESS if the first was read by then.
        assert [kind for kind, _ in groupby(listed)] == ["OPEN", "ACCESS", "CLOSE_NOWRITE"]


def test_a_merging_guest_is_told_nothing_of_its_own(area: Area) -> None:
    furnish(area.src)
    with guest_of(area, by_queue=True, mode=MERGED) as guest:
        guest.mark("")
        node = guest.mark("f")
        opened = guest.open(node, os.O_RDWR)
        guest.read(node, opened.fh)
        guest.write(node, opened.fh, b"new")
        guest.release(node, opened.fh)
        guest.mknod("made")
        guest.setattr(node, 1 << 0, mode=0o600)
        guest.unlink("f")
        (area.src / "other").mkdir()
        (area.src / LAST).mkdir()
        assert kinds(guest.hear_through(LAST)) == ["ENDED(GONE)", "CREATE other"]


def test_what_happened_before_a_mark_is_not_told(area: Area) -> None:
    """However soon the mark follows."""
    with guest_of(area, by_queue=True) as guest:
        for i in range(50):
            path = f"d{i}"
            (area.src / path).mkdir()
            entry = guest.walk(path)
            for j in range(20):
                (area.src / path / f"before{j}").touch()
            body = struct.pack("<QII", entry.generation, CREATE, 0)
            guest.ask(MARK, entry.node, body)
            (area.src / path / f"after{i}").touch()
            told = guest.hear_through(f"after{i}")
            assert told == []


def test_a_removal_follows_what_happened_before(area: Area) -> None:
    with guest_of(area, by_queue=True) as guest:
        for i in range(50):
            guest.mark("", CREATE)
            (area.src / f"theirs{i}").mkdir()
            guest.mkdir(f"own{i}")
            guest.ask(MARK, ROOT, struct.pack("<QII", 0, 0, 0))
            (area.src / f"after{i}").mkdir()
            told = guest.hear_until(lambda told: any(isinstance(each, End) for each in told))
            assert kinds(told) == [f"CREATE theirs{i}", f"CREATE own{i}", "ENDED(REMOVED)"]


@pytest.mark.parametrize("mode", [REMOTE, MERGED])
def test_what_happened_before_a_change_of_names_is_there_with_the_answer(
    area: Area, mode: int
) -> None:
    with guest_of(area, by_queue=True, mode=mode) as guest:
        guest.mark("", CREATE | DELETE)
        own = ["DELETE x"] if mode == REMOTE else []
        for _ in range(100):
            (area.src / "x").mkdir()
            guest.rmdir("x")
            assert kinds(guest.more()) == ["CREATE x", *own]


def test_without_the_queue_it_is_taken_before_the_answer(area: Area) -> None:
    with guest_of(area, by_queue=False, mode=MERGED) as guest:
        guest.mark("", CREATE | DELETE)
        for _ in range(100):
            assert guest.more() == []
            # Behind TAKE in the queue.
            guest.getattr(ROOT)
            (area.src / "x").mkdir()
            guest.rmdir("x")
            assert kinds(guest.more()) == ["CREATE x"]


def test_limbo(area: Area) -> None:
    """The guest removes a file that the host holds open: the mark lasts until it is closed."""
    (area.src / "f").write_bytes(b"x")
    with guest_of(area, by_queue=True) as guest:
        node = guest.mark("f")
        with (area.src / "f").open("rb"):
            guest.unlink("f")
            guest.ask(MARK, node, struct.pack("<QII", guest.generation, 0, LIMBO))
            guest.forget_all()
        told = guest.hear_until(lambda told: any(isinstance(each, End) for each in told))
        assert kinds(told) == [
            "OPEN",
            "ATTRIB",
            "CLOSE_NOWRITE",
            "DELETE_SELF",
            "ENDED(GONE)",
        ]


# The notification queue ------------------------------------------------------------------


def test_without_buffers_nothing_is_lost_or_reordered(area: Area) -> None:
    with guest_of(area, by_queue=True, buffers=0) as guest:
        guest.mark("", CREATE)
        names = [f"f{i}" for i in range(200)]
        for name in names:
            (area.src / name).mkdir()
        guest.getattr(ROOT)
        assert guest.more() == []
        guest.offer(3)
        told = guest.hear_until(lambda told: len(told) >= len(names))
        assert kinds(told) == [f"CREATE {name}" for name in names]


def test_a_buffer_that_is_too_small_is_given_an_overflow(area: Area) -> None:
    with guest_of(area, by_queue=True, buffers=0) as guest:
        guest.mark("", CREATE)
        guest.offer(3, size=100)
        for name in ("a", "b" * 200, "c"):
            (area.src / name).mkdir()
        told = guest.hear_until(lambda told: len(told) >= 3)
        assert [each.mask & ~0x40000000 for each in told if isinstance(each, Told)] == [
            CREATE,
            Q_OVERFLOW,
            CREATE,
        ]


def test_reading_is_heard_as_soon_as_it_is_asked_for(area: Area) -> None:
    furnish(area.src)
    with guest_of(area, by_queue=True) as guest:
        for _ in range(20):
            node = guest.mark("f", OPEN)
            (area.src / "f").read_bytes()
            assert kinds(guest.hear_until(bool)) == ["OPEN"]
            guest.ask(MARK, node, struct.pack("<QII", guest.generation, MODIFY, 0))


def test_a_daemon_that_is_told_not_to_has_no_such_protocol(area: Area) -> None:
    with (
        area.serving("--fsnotify=none"),
        pytest.raises(AssertionError),
        Marking(str(area.socket), by_queue=False),
    ):
        pass
