"""A client that keeps its own marks is told what was lost, as events like any others."""

from __future__ import annotations

import errno

import pytest

from farwatch.events import Change, Key, Kind
from tests.session.fsnotify.client import MERGED, OWN_THREAD, REMOTE, Client, kinds
from tests.session.memory import MemoryDisk
from tests.session.upkeeping import Keeper


@pytest.fixture(params=[REMOTE, MERGED], ids=["remote", "merged"])
def watched(request: pytest.FixtureRequest, client: Client, disk: MemoryDisk) -> Client:
    """d is marked, with three files, and so is one of the files."""
    disk.do_mkdir("d")
    for name in "abc":
        disk.do_file(f"d/{name}", b"123")
    client.init()
    client.begin(request.param)
    client.watch("d")
    client.watch("d/a")
    Keeper(client.session, disk).finish()
    return client


def lose(client: Client) -> None:
    Keeper(client.session, client.disk).lose()


def test_the_difference_is_told(watched: Client, disk: MemoryDisk) -> None:
    disk.do_close(disk.do_remove("d/a"))
    disk.do_rename("d/b", "d/x")
    disk.do_write("d/c", b"other")
    disk.do_mkdir("d/sub")
    lose(watched)
    heard = kinds(watched.heard())
    assert heard[:4] == ["ATTRIB", "DELETE_SELF", "ENDED(GONE)", "DELETE a"]
    assert sorted(heard[4:]) == ["CLOSE_WRITE c", "CREATE sub", "MODIFY c", "RENAME b -> x"]


def test_once(watched: Client, disk: MemoryDisk) -> None:
    disk.do_file("d/new")
    lose(watched)
    assert kinds(watched.heard()) == ["CREATE new", "CLOSE_WRITE new"]
    lose(watched)
    assert watched.heard() == []


def test_what_was_told_is_not_told_again(watched: Client, disk: MemoryDisk) -> None:
    inode = disk.do_file("d/new")
    watched.deliver(Change(Kind.CREATE, disk.place("d/new"), inode.key))
    watched.heard()
    lose(watched)
    assert watched.heard() == []


def test_what_the_client_did_itself(watched: Client, disk: MemoryDisk) -> None:
    """It is told if it waits to be told, and else it knows already."""
    d = watched.node("d")
    watched.kernel.mknod("own", directory=d)
    place, key = disk.place("d/own"), disk.at("d/own").key
    watched.deliver(Change(Kind.CREATE, place, key, thread=OWN_THREAD))
    watched.heard()
    lose(watched)
    assert watched.heard() == []
    watched.kernel.unlink("own", directory=d)
    lose(watched)
    heard = kinds(watched.heard())
    assert ("DELETE own" in heard) is watched.session.hears_itself


def test_a_mark_that_is_gone_is_not_compared(watched: Client, disk: MemoryDisk) -> None:
    watched.mark(watched.node("d"), 0)
    watched.heard()
    disk.do_file("d/new")
    lose(watched)
    assert watched.heard() == []
    assert list(watched.session.view.known.directories) == []


def test_where_nothing_can_be_compared_it_overflows(
    watched: Client, disk: MemoryDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def names(self: MemoryDisk, directory: Key) -> list[bytes]:
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(MemoryDisk, "names", names)
    disk.do_file("d/new")
    lose(watched)
    assert kinds(watched.heard()) == ["Q_OVERFLOW"]
