"""Whose doing an event says it is, and who is told what in each mode."""

from __future__ import annotations

import pytest

from farwatch.events import Change, Kind
from tests.session.fsnotify.client import (
    ALL,
    HOST_THREAD,
    LOCAL_SOURCE,
    NUMBER,
    OTHER_CLIENT,
    OWN_THREAD,
    REMOTE_SOURCE,
    UNKNOWN_SOURCE,
    Client,
    Told,
    created,
    died,
    kinds,
    linked,
    removed,
    renamed,
    touched,
)
from tests.session.kernel import ROOT
from tests.session.memory import MemoryDisk


@pytest.mark.parametrize(
    ("thread", "expected"),
    [
        (OWN_THREAD, (LOCAL_SOURCE, NUMBER)),
        (OTHER_CLIENT, (REMOTE_SOURCE, 9)),
        (HOST_THREAD, (REMOTE_SOURCE, 0)),
        (0, (UNKNOWN_SOURCE, 0)),
    ],
)
def test_who_did_it(client: Client, thread: int, expected: tuple[int, int]) -> None:
    client.watch("")
    client.deliver(created(client.disk, "x", thread))
    (told,) = client.heard()
    assert isinstance(told, Told)
    assert (told.source, told.client) == expected


@pytest.mark.parametrize("thread", [OTHER_CLIENT, HOST_THREAD, 0])
def test_a_merging_client_is_told_what_others_do(merging: Client, thread: int) -> None:
    merging.watch("")
    merging.deliver(created(merging.disk, "x", thread))
    assert kinds(merging.heard()) == ["CREATE x"]


def test_a_merging_client_is_not_told_what_it_does(merging: Client) -> None:
    disk = merging.disk
    disk.do_file("f")
    merging.watch("f")
    merging.watch("")
    mine = OWN_THREAD
    merging.deliver(
        created(disk, "x", mine),
        touched(disk, "x", Kind.OPEN, mine),
        touched(disk, "f", Kind.ATTRIB, mine),
        linked(disk, "f", "g", mine),
        renamed(disk, "g", "h", thread=mine),
        removed(disk, "h", mine),
        created(disk, "y"),
    )
    assert kinds(merging.heard()) == ["CREATE y"]


def test_what_others_did_to_a_name_before_the_client_did_is_told(merging: Client) -> None:
    """The events of both are true: neither takes the other back."""
    disk = merging.disk
    merging.watch("")
    theirs = [created(disk, "x"), touched(disk, "x", Kind.MODIFY)]
    mine = [removed(disk, "x", OWN_THREAD), created(disk, "x", OWN_THREAD)]
    merging.deliver(*theirs, *mine, touched(disk, "x", Kind.ATTRIB))
    assert kinds(merging.heard()) == ["CREATE x", "MODIFY x", "ATTRIB x"]


def test_a_merging_client_that_took_the_last_name_knows_of_the_end(merging: Client) -> None:
    disk = merging.disk
    inode = disk.do_file("f")
    merging.watch("f")
    merging.watch("")
    gone = removed(disk, "f", OWN_THREAD)
    merging.deliver(gone, died(disk, inode, OWN_THREAD, with_its_name=True))
    assert kinds(merging.heard()) == ["ENDED(GONE)"]


def test_the_last_name_decides_and_not_the_last_but_one(merging: Client) -> None:
    disk = merging.disk
    inode = disk.do_file("f")
    disk.do_link("f", "g")
    merging.watch("f")
    merging.deliver(removed(disk, "g"))
    assert kinds(merging.heard()) == ["ATTRIB"]
    gone = removed(disk, "f", OWN_THREAD)
    merging.deliver(gone, died(disk, inode, OWN_THREAD, with_its_name=True))
    assert kinds(merging.heard()) == ["ENDED(GONE)"]


def test_a_merging_client_that_was_the_last_to_close_is_told(merging: Client) -> None:
    """Somebody else has removed the file; it does not raise that it is gone."""
    disk = merging.disk
    inode = disk.do_file("f")
    merging.watch("f")
    merging.deliver(removed(disk, "f"))
    merging.deliver(died(disk, inode, OWN_THREAD))
    assert kinds(merging.heard()) == ["ATTRIB", "DELETE_SELF", "ENDED(GONE)"]


def test_a_merging_client_whose_removal_another_s_close_ends(merging: Client) -> None:
    """It has raised DELETE_SELF when it removed the file: its kernel knows of no other opener."""
    disk = merging.disk
    inode = disk.do_file("f")
    merging.watch("f")
    merging.deliver(removed(disk, "f", OWN_THREAD))
    merging.deliver(died(disk, inode))
    assert kinds(merging.heard()) == ["ENDED(GONE)"]


def test_a_rename_over_something_by_a_merging_client(merging: Client) -> None:
    disk = merging.disk
    disk.do_file("f")
    over = disk.do_file("g")
    merging.watch("g")
    merging.watch("")
    change = renamed(disk, "f", "g", thread=OWN_THREAD)
    merging.deliver(change, died(disk, over, OWN_THREAD))
    assert kinds(merging.heard()) == ["ENDED(GONE)"]


def test_two_clients_are_told_the_same_and_whose_it_was(disk: MemoryDisk) -> None:
    client, other = Client(disk), Client(disk)
    other.session.client_of = lambda thread: {OWN_THREAD: 9}.get(thread, 0)
    for each in (client, other):
        each.init()
        each.begin()
        each.watch("")
    change = created(disk, "x", OWN_THREAD)
    for each in (client, other):
        each.deliver(change)
    (first,), (second,) = client.heard(), other.heard()
    assert isinstance(first, Told)
    assert isinstance(second, Told)
    assert (first.source, first.client) == (LOCAL_SOURCE, NUMBER)
    assert (second.source, second.client) == (REMOTE_SOURCE, 9)


# The truth -------------------------------------------------------------------------------


def test_names_and_links_are_told_as_they_are(client: Client) -> None:
    """Before any event: nothing is pending, and no count is kept."""
    disk = client.disk
    disk.do_file("f")
    disk.do_link("f", "g")
    node = client.node("f")
    assert client.kernel.getattr(node).nlink == 2
    disk.do_remove("g")
    assert client.kernel.getattr(node).nlink == 1
    inode = disk.do_remove("f")
    assert client.kernel.getattr(node).nlink == 0
    disk.do_close(inode)
    assert client.kernel.getattr(node).nlink == 0
    disk.do_file("f")
    entry = client.kernel.lookup("f")
    assert entry.node != node
    assert entry.entry_valid == 1


def test_a_name_that_changed_is_removed_as_it_is(client: Client) -> None:
    """The client asks for what the name holds, whatever it was told before."""
    disk = client.disk
    disk.do_file("x")
    client.node("x")
    disk.do_remove("x")
    disk.do_file("x")
    client.kernel.unlink("x")
    assert "x" not in [path for path, _ in disk.walk()]


def test_nothing_is_replayed(client: Client) -> None:
    client.watch("")
    client.deliver(created(client.disk, "x"), removed(client.disk, "x"))
    assert client.session.delivery.is_idle
    assert client.session.view.pending == {}


def test_files_are_opened_by_the_names_that_others_gave_them(client: Client) -> None:
    """So that the source tells what is done to them under these."""
    disk = client.disk
    disk.do_file("f")
    node = client.node("f")
    client.deliver(renamed(disk, "f", "g"))
    opened = client.kernel.open(node)
    client.kernel.release(node, opened.fh)
    assert disk.places == [disk.place("g")]


def test_of_several_links_a_file_is_opened_by_the_one_that_was_asked_for_last(
    client: Client,
) -> None:
    """So does each operation of a client's that walks its path, and so its events are named."""
    disk = client.disk
    disk.do_mkdir("d")
    disk.do_file("d/f")
    disk.do_link("d/f", "g")
    for path in ("d/f", "g", "d/f", "g", "g"):
        node = client.node(path)
        opened = client.kernel.open(node)
        client.kernel.release(node, opened.fh)
        client.kernel.setattr(node, 1 << 0, mode=0o600)
        assert disk.places[-2:] == [disk.place(path)] * 2


def test_what_the_settler_is_told_is_what_was_told_before(client: Client) -> None:
    """And not what the client has looked up since."""
    disk = client.disk
    client.watch("")
    subscription = client.session.subscription
    assert subscription is not None
    change = created(disk, "x")
    place = disk.place("x")
    client.node("x")
    assert subscription.holds(place).__class__.__name__ == "Unknown"
    client.deliver(change)
    assert subscription.holds(place) == change.node
    client.deliver(removed(disk, "x"))
    assert subscription.holds(place) is None
    client.deliver(Change(Kind.OVERFLOW, None, None))
    assert subscription.holds(place).__class__.__name__ == "Unknown"


def test_the_root_is_always_known(client: Client) -> None:
    assert client.mark(ROOT) == (ALL, 0)
