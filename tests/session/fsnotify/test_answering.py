"""What is told before a change of names is answered, and what after."""

from __future__ import annotations

import struct

import pytest

from farwatch.abi.fuse import Opcode
from farwatch.events import Kind
from tests.session.fsnotify.client import (
    OWN_THREAD,
    TAKE,
    Client,
    created,
    died,
    kinds,
    made_directory,
    notices,
    removed,
    renamed,
    touched,
)
from tests.session.kernel import ROOT
from tests.session.memory import MemoryDisk

MINE = OWN_THREAD


def test_only_changes_of_names_and_only_for_who_has_begun(disk: MemoryDisk) -> None:
    client = Client(disk)
    client.init(0)
    assert not client.session.told_first
    client.init()
    assert not client.session.told_first
    client.begin()
    assert client.session.told_first == {
        Opcode.CREATE, Opcode.MKNOD, Opcode.MKDIR, Opcode.SYMLINK, Opcode.LINK,
        Opcode.UNLINK, Opcode.RMDIR, Opcode.RENAME, Opcode.RENAME2,
    }  # fmt: skip
    client.kernel.ask(Opcode.DESTROY, 0)
    assert not client.session.told_first
    client.init(0)
    assert not client.session.told_first


def test_a_merging_client_is_told_what_comes_after_its_change_after_the_answer(
    merging: Client,
) -> None:
    disk = merging.disk
    merging.watch("")
    with merging.session.answering():
        merging.deliver(
            created(disk, "x"),
            removed(disk, "x", MINE),
            created(disk, "x"),
        )
        assert kinds(merging.heard()) == ["CREATE x"]
        assert not merging.session.has_notice
    assert kinds(merging.heard()) == ["CREATE x"]


def test_what_waited_already_comes_first(merging: Client) -> None:
    disk = merging.disk
    merging.watch("")
    merging.deliver(created(disk, "x"), created(disk, "y", MINE), created(disk, "z"))
    with merging.session.answering():
        merging.deliver(removed(disk, "y", MINE), removed(disk, "z"))
        assert kinds(merging.heard()) == ["CREATE x", "CREATE z"]
    assert kinds(merging.heard()) == ["DELETE z"]


def test_what_it_has_done_to_no_name_stops_nothing(merging: Client) -> None:
    disk = merging.disk
    disk.do_file("f")
    merging.watch("")
    with merging.session.answering():
        merging.deliver(
            touched(disk, "f", Kind.ATTRIB, MINE), created(disk, "x"), removed(disk, "f", MINE)
        )
        assert kinds(merging.heard()) == ["CREATE x"]


@pytest.mark.parametrize("is_directory", [True, False])
def test_an_end_that_it_has_brought_about_follows_the_answer(
    merging: Client, is_directory: bool
) -> None:
    """It raises DELETE_SELF by itself at the answer."""
    disk = merging.disk
    made_directory(disk, "f") if is_directory else created(disk, "f")
    inode = disk.at("f")
    merging.watch("f")
    merging.watch("")
    with merging.session.answering():
        theirs = created(disk, "x")
        gone = removed(disk, "f", MINE)
        merging.deliver(theirs, gone, died(disk, inode, MINE, with_its_name=True))
        assert kinds(merging.heard()) == ["CREATE x"]
    assert kinds(merging.heard()) == ["ENDED(GONE)"]


def test_what_it_has_renamed_over_ends_after_the_answer(merging: Client) -> None:
    disk = merging.disk
    disk.do_file("f")
    over = disk.do_file("g")
    merging.watch("g")
    with merging.session.answering():
        merging.deliver(renamed(disk, "f", "g", thread=MINE), died(disk, over, MINE))
        assert merging.heard() == []
    assert kinds(merging.heard()) == ["ENDED(GONE)"]


def test_a_client_that_hears_of_itself_is_told_all_before(client: Client) -> None:
    disk = client.disk
    client.watch("")
    with client.session.answering():
        client.deliver(created(disk, "x"), removed(disk, "x", MINE), created(disk, "x"))
        assert kinds(client.heard()) == ["CREATE x", "DELETE x", "CREATE x"]


def test_nothing_is_stopped_where_nobody_waits_for_an_answer(merging: Client) -> None:
    disk = merging.disk
    merging.watch("")
    merging.deliver(created(disk, "x", MINE), created(disk, "y"))
    assert kinds(merging.heard()) == ["CREATE y"]


def test_who_takes_is_answered_as_much(merging: Client) -> None:
    disk = merging.disk
    merging.watch("")
    assert merging.take() is None
    with merging.session.answering():
        merging.deliver(created(disk, "x"), removed(disk, "x", MINE), created(disk, "y"))
        answer = merging.answer()
        assert answer is not None
        assert kinds(notices(answer[2])) == ["CREATE x"]
        merging.kernel.try_ask(TAKE, ROOT, struct.pack("<II", 1 << 16, 0))
        assert merging.answer() is None
    answer = merging.answer()
    assert answer is not None
    assert kinds(notices(answer[2])) == ["CREATE y"]
