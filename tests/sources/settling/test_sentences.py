"""The rules, one sentence at a time: records as they are read, changes as they are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from farwatch.events import Change, Key, Mask, Place, Record
from farwatch.sources.settling import UNKNOWN, Holder, Settler, exchanges
from farwatch.sources.settling.entries import Entries
from farwatch.sources.settling.ledger import Ledger
from farwatch.sources.settling.memory import Anticipated
from farwatch.sources.settling.nameless import Nameless
from farwatch.sources.settling.suspects import Suspects
from farwatch.sources.settling.telling import Telling

OWN = 9
DIRECTORY = b"dir"


def place(name: str) -> Place:
    """``x`` is a name in one directory, ``d/x`` one in the directory whose key is ``d``."""
    directory, _, last = name.rpartition("/")
    return Place(directory.encode() or DIRECTORY, last.encode())


def record(text: str) -> Record:
    """``MASK name node [new name] [thread]``, as ``CREATE|MODIFY x i`` or ``RENAME x i y @2``."""
    words = text.split()
    thread = int(words.pop()[1:]) if words[-1].startswith("@") else 1
    mask = 0
    for word in words[0].split("|"):
        mask |= Mask[word]
    if words[1] == "-":
        return Record(mask, thread, None, words[2].encode())
    if words[1].endswith("/."):
        return Record(mask, thread, place(words[1]), None)
    new = place(words[3]) if len(words) > 3 else None
    return Record(mask, thread, place(words[1]), words[2].encode(), new)


def said(change: Change) -> str:
    """A change in the notation of the cases."""
    names = [change.kind.name]
    for end, node in ((change.place, change.node), (change.new_place, change.other)):
        if end is not None:
            mine = end.name.decode()
            inside = "" if end.directory == DIRECTORY else end.directory.decode() + "/"
            names.append(inside + mine)
        elif node is not None or change.new_place is not None:
            names.append("-")
        if node is not None:
            names.append(node.decode())
    return " ".join(names) + (" (linked)" if change.linked else "")


class Case(NamedTuple):
    """What is read, what the disk and the client hold, what is to be told."""

    title: str
    records: str
    changes: str
    disk: str = ""
    told: str = ""


def held(text: str) -> dict[Place, Key | None]:
    """``x=i y=`` : x holds i, y is free."""
    pairs = (pair.split("=") for pair in text.split())
    return {place(name): node.encode() or None for name, node in pairs}


def settle(case: Case, settler: Settler | None = None) -> list[str]:
    """What is told of a case; names that it does not mention are unknown."""
    settler = settler or Settler({OWN})
    told = held(case.told)

    def client(name: Place) -> Holder:
        return told.get(name, UNKNOWN)

    records = [record(line) for line in case.records.split(";") if line.strip()]
    assert settler.places(records) >= set(held(case.disk))
    return [said(change) for change in settler.settle(records, held(case.disk), client)]


def lines(text: str) -> list[str]:
    """The changes of a case."""
    return [line.strip() for line in text.split(";") if line.strip()]


PACED = [
    Case("a new file", "CREATE x i", "CREATE x i"),
    Case(
        "a merged mask is told in the order in which a file lives",
        "CLOSE_NOWRITE|CLOSE_WRITE|ATTRIB|MODIFY|ACCESS|OPEN|CREATE x i",
        "CREATE x i; OPEN x i; ACCESS x i; MODIFY x i; ATTRIB x i; CLOSE_WRITE x i;"
        "CLOSE_NOWRITE x i",
    ),
    Case(
        "an unlink explains the link count before it; the death is told last",
        "ATTRIB|DELETE_SELF - i; DELETE x i",
        "DELETE x i; DEATH - i (linked)",
    ),
    Case("a link explains it too, and is marked", "ATTRIB - i; CREATE y i", "CREATE y i (linked)"),
    Case(
        "a rename over a target explains the count that follows it",
        "RENAME x i y; ATTRIB|DELETE_SELF - j",
        "RENAME x i y j; DEATH - j",
        told="x=i y=j",
    ),
    Case(
        "also where the client was never told what was replaced",
        "RENAME x i y; ATTRIB|DELETE_SELF - j",
        "RENAME x i y j; DEATH - j",
    ),
    Case(
        "a directory's own attributes are nobody's link count",
        "ATTRIB|ISDIR d/. -",
        "ATTRIB - d",
    ),
    Case(
        "a directory's death comes before its DELETE, and is told after",
        "DELETE_SELF|ISDIR d/. -; DELETE|ISDIR x d",
        "DELETE x d; DEATH - d (linked)",
    ),
    Case(
        "two halves of an exchange are one change",
        "RENAME x i y; RENAME y j x",
        "EXCHANGE x i y j",
        told="x=i y=j",
    ),
    Case(
        "also if another thread's record came between them",
        "RENAME x i y; MODIFY z k @2; RENAME y j x",
        "EXCHANGE x i y j; MODIFY z k",
        told="x=i y=j",
    ),
    Case("a node that could not be encoded is told as it was read", "MODIFY x -", "MODIFY x -"),
    Case("an overflow is told", "Q_OVERFLOW - ?", "OVERFLOW"),
]

MERGED = [
    Case(
        "read after the fact: create q, rename q r, rename r q, unlink q",
        "CREATE|CLOSE_WRITE|DELETE q i; RENAME q i r; RENAME r i q; ATTRIB|DELETE_SELF - i",
        "CREATE q i; CLOSE_WRITE q i; RENAME q i r; RENAME r i q; DELETE q i; DEATH - i (linked)",
        disk="q=",
        told="q= r=",
    ),
    Case(
        "read after the fact: create q, link q r, unlink q, link r q",
        "CREATE|CLOSE_WRITE|DELETE q i; ATTRIB - i; CREATE r i",
        "CREATE q i; CLOSE_WRITE q i; CREATE r i (linked); DELETE q i; CREATE q i (linked)",
        disk="q=i",
        told="q= r=",
    ),
    Case(
        "read after the fact: create x, create y, append x, unlink x",
        "CREATE|MODIFY|CLOSE_WRITE|DELETE x i; CREATE|CLOSE_WRITE y j; ATTRIB|DELETE_SELF - i",
        "CREATE x i; MODIFY x i; CLOSE_WRITE x i; CREATE y j; CLOSE_WRITE y j; DELETE x i;"
        "DEATH - i (linked)",
        disk="x=",
        told="x= y=",
    ),
    Case(
        "CREATE: an occupied name first pays the DELETE that it owes",
        "CREATE|DELETE x i; CREATE x j",
        "CREATE x i; DELETE x i; CREATE x j",
        disk="x=j",
        told="x=",
    ),
    Case(
        "both bits, and the name holds the node: DELETE, and CREATE is owed",
        "ATTRIB - i; DELETE|CREATE x i; CREATE y j",
        "DELETE x i; CREATE y j; CREATE x i (linked)",
        disk="x=i",
        told="x=i y=",
    ),
    Case(
        "both bits, the name held the node and is free now: gone, come, and gone",
        "ATTRIB - i; DELETE|CREATE x i",
        "DELETE x i; CREATE x i (linked); DELETE x i",
        disk="x=",
        told="x=i",
    ),
    Case(
        "both bits, and nothing is known of the name: a temporary file",
        "CREATE|DELETE x i",
        "CREATE x i; DELETE x i",
        disk="x=",
    ),
    Case(
        "RENAME: what makes the name hold the node is paid before",
        "ATTRIB - i; DELETE|CREATE x i; RENAME x i y",
        "DELETE x i; CREATE x i (linked); RENAME x i y",
        disk="x=",
        told="x=i y=",
    ),
    Case(
        "RENAME onto a name that owes a DELETE: that is paid before",
        "CREATE|DELETE y j; CREATE x i; RENAME x i y",
        "CREATE y j; CREATE x i; DELETE y j; RENAME x i y",
        disk="x= y=i",
        told="x= y=",
    ),
    Case(
        "a DELETE that was put before a rename by a write is told after it",
        "MODIFY|DELETE x i; RENAME x i y; RENAME y i x; ATTRIB - i",
        "MODIFY x i; RENAME x i y; RENAME y i x; DELETE x i",
        disk="x=",
        told="x=i y=",
    ),
    Case(
        "a DELETE told by another thread can have happened twice: the disk demands it",
        "ATTRIB - i; DELETE x i; ATTRIB - i @2; CREATE x i @2",
        "DELETE x i; CREATE x i (linked); DELETE x i",
        disk="x=",
        told="x=i",
    ),
    Case(
        "what no record speaks of is not invented",
        "CREATE|DELETE x i",
        "CREATE x i; DELETE x i",
        disk="x=j",
        told="x=",
    ),
    Case(
        "not even a second CREATE, if no link count was reported: it was renamed back since",
        "CREATE x i; RENAME x i y",
        "CREATE x i; RENAME x i y",
        disk="x=i",
        told="x= y=",
    ),
    Case(
        "a CREATE that can only have happened before another is paid before it",
        "ATTRIB - i; DELETE|CREATE x i; CREATE x j",
        "DELETE x i; CREATE x i (linked); DELETE x i; CREATE x j",
        disk="x=j",
        told="x=i",
    ),
    Case(
        "two renames of one node there and back are two",
        "RENAME x i y; RENAME y i x",
        "RENAME x i y; RENAME y i x",
        disk="x=i y=",
        told="x=i y=",
    ),
    Case(
        "what had come back to a name has left it as before when the name is made anew",
        "RENAME x i y; RENAME y i x; CREATE|MODIFY x j",
        "RENAME x i y; RENAME y i x; RENAME x i y; CREATE x j; MODIFY x j",
        disk="x=j y=",
        told="x=i y=",
    ),
    Case(
        "also onto what is there by then",
        "RENAME y i x; MODIFY|DELETE x i; RENAME x i y; CREATE|MODIFY x k; ATTRIB - k; "
        "CREATE|MODIFY y j; ATTRIB - i",
        "RENAME y i x; MODIFY x i; RENAME x i y; CREATE x k; MODIFY x k; "
        "RENAME y i x k; CREATE y j; MODIFY y j; DELETE x i",
        disk="x= y=j",
        told="x= y=i",
    ),
    Case(
        "before a directory goes, everything in it goes",
        "CREATE|DELETE|ISDIR x d; CREATE|DELETE d/y i; ATTRIB - i; DELETE_SELF|ISDIR d/. -",
        "CREATE x d; CREATE d/y i; DELETE d/y i; DELETE x d; DEATH - d (linked)",
        disk="x= d/y=",
        told="x= d/y=",
    ),
    Case(
        "a DELETE that is owed is told where the inode's death was read, not at the end",
        "CREATE|CLOSE_WRITE|DELETE x i; ATTRIB|DELETE_SELF - i; CREATE y j",
        "CREATE x i; CLOSE_WRITE x i; DELETE x i; CREATE y j; DEATH - i (linked)",
        disk="x=",
        told="x=",
    ),
    Case(
        "a write through a descriptor after the unlink is merged with it: it is told before",
        "ATTRIB - i; DELETE|MODIFY|CLOSE_WRITE x i",
        "MODIFY x i; CLOSE_WRITE x i; DELETE x i",
        told="x=i",
    ),
]

SERVER = [
    Case("what the server did itself is not told", "CREATE|MODIFY x i @9", ""),
    Case("nor its link counts and deaths", "ATTRIB|DELETE_SELF - i @9; DELETE x i @9", ""),
    Case(
        "own after remote: made again by the client; of the old inode only its end is told",
        "ATTRIB|DELETE_SELF - i; DELETE x i; CREATE x j @9",
        "DELETE - i; DEATH - i (linked)",
        told="x=i",
    ),
    Case(
        "a write before it is told to the node alone",
        "MODIFY x i; DELETE x i @9",
        "MODIFY - i",
        told="x=i",
    ),
    Case("a CREATE is not told any more", "CREATE x i; DELETE x i @9", "", told="x="),
    Case(
        "the other half of a rename still is: it came from nowhere",
        "RENAME x i y; CREATE x j @9",
        "RENAME - i y",
        told="x=i y=",
    ),
    Case(
        "or went nowhere; and what it replaced still dies",
        "RENAME x i y; ATTRIB|DELETE_SELF - j; DELETE y i @9",
        "RENAME x i; DELETE - j; DEATH - j",
        told="x=i y=j",
    ),
    Case(
        "an exchange falls into two halves",
        "RENAME x i y; RENAME y j x; DELETE x j @9",
        "RENAME y j; RENAME - i y",
        told="x=i y=j",
    ),
    Case("both halves of a rename", "RENAME x i y; RENAME y i x @9", "", told="x=i y="),
    Case(
        "what was done after it is told",
        "DELETE x i; CREATE x j @9; DELETE x j",
        "DELETE - i; DELETE x j",
        told="x=i",
    ),
]


@pytest.mark.parametrize("case", PACED + MERGED + SERVER, ids=lambda case: case.title)
def test_sentence(case: Case) -> None:
    assert settle(case) == lines(case.changes)


@pytest.mark.parametrize("case", PACED, ids=lambda case: case.title)
def test_what_is_read_at_once_needs_nothing_of_the_disk(case: Case) -> None:
    records = [record(line) for line in case.records.split(";")]
    assert Settler().places(records) == set()


def told_of(
    settler: Settler, text: str, *, flush: bool = False, told: str = "", disk: str = ""
) -> list[str]:
    """One more batch of a sequence."""
    holds = held(told)
    records = [record(line) for line in text.split(";") if line.strip()]
    found = held(disk)
    looked = {at: found.get(at) for at in settler.places(records)}
    changes = settler.settle(records, looked, lambda at: holds.get(at, UNKNOWN), flush=flush)
    return [said(change) for change in changes]


class TestAcrossBatches:
    """What waits for its explanation, from one batch to the next."""

    def test_a_link_count_waits_for_its_unlink(self) -> None:
        settler = Settler()
        assert told_of(settler, "ATTRIB - i") == []
        assert settler.carrying
        assert told_of(settler, "DELETE x i") == ["DELETE x i"]
        assert not settler.carrying

    @pytest.mark.parametrize(("thread", "most"), [(0, 64), (1, 1024)])
    def test_but_not_while_others_go_on_for_ever(self, thread: int, most: int) -> None:
        settler = Settler()
        assert told_of(settler, f"ATTRIB - i @{thread}") == []
        others = 0
        while "ATTRIB - i (linked)" not in told_of(settler, "MODIFY w m @2"):
            others += 1
            assert others < most
        assert others > most // 2
        assert not settler.carrying

    def test_and_a_link_that_explains_it_is_marked(self) -> None:
        settler = Settler()
        assert told_of(settler, "ATTRIB - i") == []
        assert told_of(settler, "CREATE x i") == ["CREATE x i (linked)"]
        assert told_of(settler, "", flush=True) == []

    def test_the_death_waits_with_it(self) -> None:
        settler = Settler()
        assert told_of(settler, "ATTRIB|DELETE_SELF - i") == []
        assert told_of(settler, "DELETE x i") == ["DELETE x i", "DEATH - i (linked)"]

    def test_a_directorys_death_waits_for_its_delete(self) -> None:
        settler = Settler()
        assert told_of(settler, "DELETE_SELF|ISDIR d/. -") == []
        assert told_of(settler, "DELETE|ISDIR x d") == ["DELETE x d", "DEATH - d (linked)"]

    def test_the_last_close_of_a_deleted_file_waits_for_nothing(self) -> None:
        settler = Settler()
        assert told_of(settler, "ATTRIB - i; DELETE x i") == ["DELETE x i"]
        assert told_of(settler, "CLOSE_WRITE x i @2; DELETE_SELF - i @2") == [
            "CLOSE_WRITE x i",
            "DEATH - i",
        ]

    def test_a_count_that_nothing_explains_is_told_once_the_queue_was_empty(self) -> None:
        settler = Settler()
        assert told_of(settler, "ATTRIB - i") == []
        assert told_of(settler, "MODIFY y j @2") == ["MODIFY y j"]
        assert told_of(settler, "", flush=True) == ["ATTRIB - i (linked)"]
        assert told_of(settler, "", flush=True) == []

    def test_or_once_its_thread_has_gone_on(self) -> None:
        settler = Settler()
        assert told_of(settler, "ATTRIB - i") == []
        assert told_of(settler, "MODIFY y j") == ["MODIFY y j", "ATTRIB - i (linked)"]

    def test_of_an_unknown_thread_it_waits_for_so_many_others(self) -> None:
        """A queue that is never empty for long is not to put it off for ever."""
        settler = Settler()
        assert told_of(settler, "ATTRIB - i @0") == []
        others = [told_of(settler, f"MODIFY y j{number} @0") for number in range(100)]
        assert [line for lines in others for line in lines if line == "ATTRIB - i (linked)"]
        assert others[:32] == [[f"MODIFY y j{number}"] for number in range(32)]
        assert not settler.carrying

    def test_and_if_one_of_them_explains_it_in_time_it_is_not_told(self) -> None:
        settler = Settler()
        assert told_of(settler, "ATTRIB - i @0") == []
        assert told_of(settler, "MODIFY y j @0; DELETE x i @0") == ["MODIFY y j", "DELETE x i"]
        assert not settler.carrying

    def test_the_count_of_what_a_rename_replaced_may_come_later(self) -> None:
        settler = Settler()
        assert told_of(settler, "RENAME x i y") == ["RENAME x i y"]
        assert told_of(settler, "ATTRIB|DELETE_SELF - j") == []
        assert told_of(settler, "", flush=True) == ["DEATH - j"]
        assert not settler.carrying

    def test_the_count_of_a_directory_is_of_what_was_replaced_if_that_was_believed_there(
        self,
    ) -> None:
        """Else its mode was changed: directories are told an ATTRIB of their own for that."""
        renamed = "RENAME|ISDIR x d y"
        believing = Settler((), believed=lambda at: b"e" if at == place("y") else None)
        assert told_of(believing, f"{renamed}; ATTRIB|ISDIR e/. -") == ["RENAME x d y e"]
        assert told_of(believing, f"{renamed}; ATTRIB|ISDIR f/. -") == [
            "RENAME x d y",
            "ATTRIB - f",
        ]
        assert told_of(Settler(), f"{renamed}; ATTRIB|ISDIR e/. -") == [
            "RENAME x d y",
            "ATTRIB - e",
        ]

    def test_that_count_may_be_merged_with_what_was_done_before_the_rename(self) -> None:
        """The directory was listed, and replaced by the same thread."""
        listed = "OPEN|ACCESS|ATTRIB|CLOSE_NOWRITE|ISDIR e/. -; RENAME|ISDIR x d y"
        told = ["OPEN - e", "ACCESS - e", "CLOSE_NOWRITE - e"]
        knowing = told_of(Settler(), listed, told="y=e", flush=True)
        assert knowing == [*told, "RENAME x d y e"]
        believing = Settler((), believed=lambda at: b"e")
        assert told_of(believing, listed, flush=True) == [*told, "RENAME x d y"]

    def test_alone_it_was_before(self) -> None:
        changed = "ATTRIB|DELETE_SELF|ISDIR e/. -; RENAME|ISDIR x d y"
        told = ["ATTRIB - e", "RENAME x d y e", "DEATH - e"]
        assert told_of(Settler(), changed, told="y=e", flush=True) == told

    def test_but_not_if_the_rename_was_told_as_one_that_replaces_nothing(self) -> None:
        believing = Settler((), believed=lambda at: b"e")
        assert told_of(believing, "RENAME|ISDIR x d y", flush=True) == ["RENAME x d y"]
        assert told_of(believing, "ATTRIB|ISDIR e/. -") == ["ATTRIB - e"]

    def test_it_is_waited_for_where_it_is_awaited(self) -> None:
        awaiting = Settler((), lambda at, node: (at, node) == (place("y"), b"i"))
        assert told_of(awaiting, "RENAME x i y") == []
        assert awaiting.carrying
        assert awaiting.awaits_count
        whole = "ATTRIB|DELETE_SELF - j"
        assert told_of(awaiting, whole) == ["RENAME x i y j", "DEATH - j"]
        assert told_of(awaiting, "RENAME x i y") == []
        assert told_of(awaiting, "MODIFY w m @2") == ["RENAME x i y", "MODIFY w m"]
        assert told_of(awaiting, "RENAME x i y @3") == []
        assert told_of(awaiting, "", flush=True) == ["RENAME x i y"]
        assert told_of(awaiting, "RENAME x i y @4", told="x=i y=") == ["RENAME x i y"]

    def test_an_exchange_replaces_nothing(self) -> None:
        awaiting = Settler((), lambda at, node: True)
        whole = "RENAME x i y; RENAME y j x"
        assert told_of(awaiting, whole, disk="x=j y=i") == ["EXCHANGE x i y j"]

    def test_or_be_that_of_a_removal(self) -> None:
        """Nobody knows what the rename replaced, and so whether it replaced anything."""
        settler = Settler()
        assert told_of(settler, "RENAME x i y") == ["RENAME x i y"]
        assert told_of(settler, "ATTRIB|DELETE_SELF - j") == []
        assert told_of(settler, "DELETE z j") == ["DELETE z j", "DEATH - j (linked)"]
        assert not settler.carrying

    def test_or_of_a_link_if_it_is_known_to_have_been_elsewhere(self) -> None:
        """The queue was read between a link count and what explains it."""
        knowing = Settler((), is_elsewhere=lambda at, node: (at, node) == (place("y"), b"j"))
        assert told_of(knowing, "RENAME x i y; ATTRIB - j") == ["RENAME x i y"]
        assert told_of(knowing, "CREATE x j") == ["CREATE x j (linked)"]
        assert not knowing.carrying

    def test_a_directory_replaces_no_file(self) -> None:
        settler = Settler()
        renamed = "RENAME|ISDIR x d y; ATTRIB|DELETE_SELF - i"
        assert told_of(settler, renamed) == ["RENAME x d y"]
        assert told_of(settler, "DELETE z i") == ["DELETE z i", "DEATH - i (linked)"]

    def test_and_a_file_no_directory(self) -> None:
        settler = Settler()
        renamed = "RENAME x i y; DELETE_SELF|ISDIR d/. -"
        assert told_of(settler, renamed) == ["RENAME x i y"]
        assert told_of(settler, "DELETE|ISDIR z d") == ["DELETE z d", "DEATH - d (linked)"]

    def test_once_its_thread_has_gone_on_it_was_the_rename_s(self) -> None:
        settler = Settler()
        assert told_of(settler, "RENAME x i y") == ["RENAME x i y"]
        assert told_of(settler, "ATTRIB - j") == []
        # It was told as one that replaces nothing known: who holds j by another name is told.
        assert told_of(settler, "ATTRIB - k; DELETE z k") == ["DELETE z k", "DELETE - j (linked)"]
        assert told_of(settler, "DELETE_SELF - j @2") == ["DEATH - j"]
        assert told_of(settler, "ATTRIB - j", flush=True) == ["ATTRIB - j (linked)"]

    def test_half_an_exchange_waits_for_the_other(self) -> None:
        settler = Settler()
        assert told_of(settler, "RENAME x i y", told="x=i y=j") == []
        assert settler.carrying
        assert not settler.awaits_count
        assert told_of(settler, "RENAME y j x", told="x=i y=j") == ["EXCHANGE x i y j"]
        assert not settler.carrying

    def test_also_if_the_client_has_perhaps_seen_the_other_name_since(self) -> None:
        settler = Settler(believed={place("y"): b"j"}.get)
        assert told_of(settler, "RENAME x i y", told="x=i") == []
        assert settler.awaits_half(held("x=j y=i").get, lambda _: UNKNOWN)
        assert told_of(settler, "RENAME y j x", told="x=i") == ["EXCHANGE x i y j"]

    def test_but_not_for_ever(self) -> None:
        settler = Settler()
        assert told_of(settler, "RENAME x i y", told="x=i y=j") == []
        assert told_of(settler, "", flush=True, told="x=i y=j") == ["RENAME x i y j"]

    @pytest.mark.parametrize(
        ("disk", "awaited"), [("x=j y=i", True), ("y=i", False), ("x=k y=i", False), ("x=j", False)]
    )
    def test_and_it_is_known_to_come_if_the_disk_is_exchanged(
        self, disk: str, awaited: bool
    ) -> None:
        settler = Settler()
        assert told_of(settler, "RENAME x i y", told="x=i y=j") == []
        on_disk, holds = held(disk), held("x=i y=j")
        assert settler.awaits_half(on_disk.get, lambda at: holds.get(at, UNKNOWN)) is awaited

    def test_what_the_disk_demanded_is_not_told_again(self) -> None:
        settler = Settler()
        batch = "ATTRIB - i; DELETE x i; ATTRIB - i @2; CREATE x i @2"
        expected = ["DELETE x i", "CREATE x i (linked)", "DELETE x i"]
        assert told_of(settler, batch, told="x=i") == expected
        assert told_of(settler, "ATTRIB - i; DELETE x i", told="x=") == []
        assert told_of(settler, "ATTRIB - i; CREATE x i", told="x=") == ["CREATE x i (linked)"]
        assert told_of(settler, "ATTRIB - i; DELETE x i", told="x=i") == ["DELETE x i"]

    def test_a_third_rename_can_be_hidden(self) -> None:
        settler = Settler()
        batch = "RENAME x i y; RENAME y i x"
        assert told_of(settler, batch, told="x=i y=", disk="x= y=i") == lines(batch)
        assert settler.carrying
        later = told_of(settler, "", flush=True, told="x=i y=", disk="x= y=i")
        assert later == ["RENAME x i y"]
        assert not settler.carrying

    def test_unless_its_record_was_on_its_way(self) -> None:
        settler = Settler()
        batch = "RENAME x i y; RENAME y i x"
        assert told_of(settler, batch, told="x=i y=", disk="x= y=i") == lines(batch)
        assert told_of(settler, "RENAME x i y", told="x=i y=", disk="x= y=i") == ["RENAME x i y"]
        assert not settler.carrying

    def test_a_third_exchange_can_be_hidden(self) -> None:
        settler = Settler()
        batch = "RENAME x i y; RENAME y j x; RENAME x j y; RENAME y i x"
        changes = ["EXCHANGE x i y j", "EXCHANGE x j y i"]
        assert told_of(settler, batch, told="x=i y=j", disk="x=j y=i") == changes
        later = told_of(settler, "", flush=True, told="x=i y=j", disk="x=j y=i")
        assert later == ["EXCHANGE x i y j"]

    def test_a_death_by_the_servers_close_is_told_if_a_delete_was(self) -> None:
        settler = Settler({OWN})
        assert told_of(settler, "ATTRIB - i; DELETE x i") == ["DELETE x i"]
        assert told_of(settler, "DELETE_SELF - i @9") == ["DEATH - i"]


def case_of(title: str) -> Case:
    """The case of that title."""
    return next(case for case in MERGED + PACED + SERVER if case.title.startswith(title))


Proof = Case | Callable[[], None]
RULES: dict[str, tuple[object, Callable[..., object], Proof]] = {
    "not_anticipated": (
        Anticipated,
        lambda _, bits, name, node: bits,
        TestAcrossBatches().test_what_the_disk_demanded_is_not_told_again,
    ),
    "other_half": (exchanges, lambda *_: None, case_of("two halves")),
    "make_way": (Ledger, lambda *_, **__: None, case_of("RENAME onto a name")),
    "make_hold": (Ledger, lambda *_: None, case_of("RENAME: what makes")),
    "make_free": (Ledger, lambda *_: None, case_of("CREATE: an occupied")),
    "_creates_here": (Entries, lambda *_: True, case_of("both bits, and the name holds")),
    "_deletes_here": (Entries, lambda *_: True, case_of("a DELETE that was put")),
    "_pay_all": (Ledger, lambda *_: None, case_of("both bits, the name held")),
    "repeat_renames": (
        Suspects,
        lambda *_: None,
        TestAcrossBatches().test_a_third_rename_can_be_hidden,
    ),
    "_suspect": (
        Suspects,
        lambda *_: None,
        TestAcrossBatches().test_a_third_exchange_can_be_hidden,
    ),
    "demand": (Ledger, lambda *_: None, case_of("read after the fact: create q, link")),
    "_may_be_linked": (
        Ledger,
        lambda _, name, node: name.can(Mask.CREATE, node),
        case_of("not even a second"),
    ),
    "let_go": (Ledger, lambda *_: None, case_of("a DELETE that is owed")),
    "pay_before": (Ledger, lambda *_: None, case_of("a CREATE that can only")),
    "empty_directory": (Ledger, lambda *_: None, case_of("before a directory")),
    "_explanations": (Nameless, lambda *_: set(), case_of("an unlink explains")),
    "_may_be_explained": (
        Nameless,
        lambda *_: False,
        TestAcrossBatches().test_a_link_count_waits_for_its_unlink,
    ),
    "meet_expectation": (Nameless, lambda *_: None, case_of("also where the client")),
    "supersede": (Telling, lambda *_: None, case_of("own after remote")),
}
"""Each rule, whose it is, what switches it off, and what then fails."""


@pytest.mark.parametrize("rule", RULES)
def test_without_the_rule_its_sentence_fails(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, instead, proof = RULES[rule]
    monkeypatch.setattr(owner, rule, instead)
    if isinstance(proof, Case):
        assert settle(proof) != lines(proof.changes)
    else:
        with pytest.raises(AssertionError):
            proof()
