"""abi/fsnotify*.py against messages that a C program has made, in both directions.

golden/fsnotify.c says where its structs and the contents of its messages come from.
"""

from __future__ import annotations

import os
from pathlib import Path
from struct import Struct
from typing import NamedTuple

import pytest

from farwatch.abi import fsnotify, fsnotify_posted
from farwatch.abi.fsnotify import Dialect, Ended, Event, Marking, Reason, Source
from farwatch.abi.fuse import IN_HEADER, INIT_IN, INIT_IN_SHORT, OUT_HEADER, Init, Opcode
from farwatch.events import Mask
from tests.abi.golden.fsnotify import CAPTURE, parse, run
from tests.abi.golden.header import compiler
from tests.abi.test_fuse import declared_fields

GOLDEN = parse(CAPTURE.read_text())

DIRECTORY, OTHER, FILE = 0x1122334455667788, 0x99, 0x0102030405060708
GENERATION, OTHER_GENERATION, FILE_GENERATION = 0x0A0B0C0D, 0x55, 0xF0E0D0C0
COOKIE = 0xC00C1E5
GROUP = 0xFFFF_8880_1234_5678


class Posted(NamedTuple):
    """What a golden event of the posted dialects says."""

    dialect: Dialect
    event: Event
    to_parent: bool


def entry(dialect: Dialect, name: bytes, mask: int = Mask.CREATE, cookie: int = 0) -> Posted:
    """Something that happened to a name; POSTED has no generations."""
    generation = 0 if dialect is Dialect.POSTED else GENERATION
    event = Event(mask, 0, DIRECTORY, name, cookie=cookie, parent_generation=generation)
    return Posted(dialect, event, to_parent=True)


def itself(dialect: Dialect) -> Posted:
    generation = 0 if dialect is Dialect.POSTED else FILE_GENERATION
    return Posted(dialect, Event(Mask.DELETE_SELF, FILE, generation=generation), to_parent=False)


NAMES = {"1": b"x", "15": b"f" * 15, "16": b"s" * 16, "255": b"l" * 255}
POSTED = {
    f"{version}.create.{length}": entry(dialect, name)
    for version, dialect in (("v1", Dialect.POSTED), ("v2", Dialect.AGGREGATED))
    for length, name in NAMES.items()
} | {
    "v1.moved": entry(Dialect.POSTED, b"old", Mask.MOVED_FROM | Mask.ISDIR, COOKIE),
    "v2.moved": entry(Dialect.AGGREGATED, b"old", Mask.MOVED_FROM | Mask.ISDIR, COOKIE),
    "v1.self": itself(Dialect.POSTED),
    "v2.self": itself(Dialect.AGGREGATED),
    "v3.create": entry(Dialect.PARENTED, b"x"),
    "v3.moved": entry(Dialect.PARENTED, b"l" * 255, Mask.MOVED_TO | Mask.ISDIR),
    "v3.child": Posted(
        Dialect.PARENTED,
        Event(Mask.MODIFY, FILE, DIRECTORY, b"s" * 16, generation=FILE_GENERATION),
        to_parent=True,
    ),
    "v3.unknown-child": entry(Dialect.PARENTED, b"x", Mask.MODIFY),
    "v3.self": itself(Dialect.PARENTED),
}

EVENTS = {
    "far.modify": Event(
        Mask.MODIFY,
        FILE,
        DIRECTORY,
        b"x",
        generation=FILE_GENERATION,
        parent_generation=GENERATION,
        source=Source.REMOTE,
        client=0x10_0000_0003,
        sequence=7,
    ),
    "far.renamed": Event(
        Mask.RENAME | Mask.ISDIR,
        FILE,
        DIRECTORY,
        b"old",
        OTHER,
        b"n" * 255,
        generation=FILE_GENERATION,
        parent_generation=GENERATION,
        new_parent_generation=OTHER_GENERATION,
        source=Source.LOCAL,
        client=4,
        sequence=8,
    ),
    "far.overflow": Event(Mask.Q_OVERFLOW, sequence=9),
}

MARKINGS = {
    "v1.add": (Dialect.POSTED, Marking(Mask.CREATE | Mask.DELETE, None, group=GROUP)),
    "v1.remove": (Dialect.POSTED, Marking(0, None, group=GROUP)),
    "v2.add": (Dialect.AGGREGATED, Marking(Mask.MODIFY | Mask.ATTRIB, GENERATION)),
    "v2.remove": (Dialect.AGGREGATED, Marking(0, GENERATION)),
    "v3.add": (Dialect.PARENTED, Marking(Mask.MODIFY | Mask.CLOSE_WRITE, None)),
    "v3.remove": (Dialect.PARENTED, Marking(0, None)),
    "far.mark": (Dialect.CURRENT, Marking(Mask.CREATE | Mask.MODIFY, GENERATION)),
    "far.limbo": (
        Dialect.CURRENT,
        Marking(0, FILE_GENERATION, fsnotify.MarkFlag.LIMBO),
    ),
}

STRUCTS = {
    "v1_in": (fsnotify_posted.POSTED_IN, {"padding"}),
    "v1_out": (fsnotify_posted.POSTED_OUT, set[str]()),
    "v2_in": (fsnotify_posted.AGGREGATED_IN, set[str]()),
    "v2_out": (fsnotify_posted.AGGREGATED_OUT, {"padding"}),
    "v3_in": (fsnotify_posted.PARENTED_IN, set[str]()),
    "v3_out": (fsnotify_posted.PARENTED_OUT, {"padding"}),
    "far_begin_in": (fsnotify.BEGIN_IN, {"padding"}),
    "far_begin_out": (fsnotify.BEGIN_OUT, set[str]()),
    "far_mark_in": (fsnotify.MARK_IN, set[str]()),
    "far_mark_out": (fsnotify.MARK_OUT, set[str]()),
    "far_take_in": (fsnotify.TAKE_IN, set[str]()),
    "far_event": (fsnotify.EVENT, {"padding"}),
    "far_ended": (fsnotify.ENDED, set[str]()),
}
"""The declaration of each struct, and which of its fields the declaration skips."""


def notification(name: str, code: int) -> bytes:
    """What a golden notification carries, its header checked."""
    data = GOLDEN.messages[name]
    assert OUT_HEADER.unpack_from(data) == (len(data), code, 0)
    return data[OUT_HEADER.size :]


def decode_marking(dialect: Dialect, data: bytes | memoryview) -> Marking:
    if dialect is Dialect.CURRENT:
        return fsnotify.decode_marking(data)
    return fsnotify_posted.decode_posted_marking(dialect, data)


def body(name: str, opcode: int) -> bytes:
    """What a golden request carries, its header checked."""
    data = GOLDEN.messages[name]
    assert IN_HEADER.unpack_from(data)[:2] == (len(data), opcode)
    return data[IN_HEADER.size :]


def test_the_compiler_makes_the_same_messages() -> None:
    cc = compiler()
    if cc is None or not Path("/usr/include/linux/fuse.h").exists():
        if os.environ.get("CI") == "true":
            pytest.fail("no C compiler with linux/fuse.h, and CI=true", pytrace=False)
        pytest.skip("THE GOLDEN FSNOTIFY MESSAGES WERE NOT MADE ANEW: no C compiler; install gcc")
    assert run(cc) == CAPTURE.read_text()


@pytest.mark.parametrize("name", GOLDEN.sizes)
def test_struct(name: str) -> None:
    declared, skipped = STRUCTS[name]
    assert declared.size == GOLDEN.sizes[name]
    fields = GOLDEN.fields[name]
    assert list(declared_fields(declared)) == [
        (offset, size) for field, offset, size in fields if field not in skipped
    ]
    # No hole in the C struct that both would have to agree on in silence.
    assert sum(size for _, _, size in fields) == declared.size


def test_every_struct_and_message_is_compared() -> None:
    assert set(STRUCTS) == set(GOLDEN.sizes)
    both = {**vars(fsnotify), **vars(fsnotify_posted)}
    declared = {value for value in both.values() if isinstance(value, Struct)}
    assert declared == {layout for layout, _ in STRUCTS.values()}
    own_tests = {"far.begin", "far.begun", "far.marked", "far.take", "far.ended"}
    own_tests |= {"v1.init", "v3.init", "far.init"}
    assert set(POSTED) | set(EVENTS) | set(MARKINGS) | own_tests == set(GOLDEN.messages)


@pytest.mark.parametrize("name", POSTED)
def test_posted_event(name: str) -> None:
    dialect, event, to_parent = POSTED[name]
    payload = notification(name, fsnotify_posted.POSTED_NOTIFY)
    assert fsnotify_posted.decode_posted(dialect, payload) == (event, to_parent)
    assert fsnotify_posted.decode_posted(dialect, memoryview(payload)) == (event, to_parent)
    assert fsnotify_posted.encode_posted(dialect, event, to_parent=to_parent) == payload


@pytest.mark.parametrize("name", ["v1.self", "v2.self", "v3.self"])
def test_the_node_itself_is_told_no_name(name: str) -> None:
    dialect, event, _ = POSTED[name]
    event = event._replace(parent=DIRECTORY, parent_generation=GENERATION, name=b"x")
    payload = notification(name, fsnotify_posted.POSTED_NOTIFY)
    assert fsnotify_posted.encode_posted(dialect, event, to_parent=False) == payload


@pytest.mark.parametrize("name", ["v1.create.1", "v2.create.1", "v3.create"])
def test_a_directory_is_told_of_an_entry_as_its_own(name: str) -> None:
    dialect, event, _ = POSTED[name]
    event = event._replace(node=FILE, generation=FILE_GENERATION, parent_generation=GENERATION)
    payload = notification(name, fsnotify_posted.POSTED_NOTIFY)
    assert fsnotify_posted.encode_posted(dialect, event, to_parent=True) == payload


@pytest.mark.parametrize("name", EVENTS)
def test_current_event(name: str) -> None:
    payload = notification(name, fsnotify.NOTIFY_EVENT)
    assert fsnotify.decode_event(payload) == EVENTS[name]
    assert fsnotify.decode_event(memoryview(payload)) == EVENTS[name]
    assert fsnotify.encode_event(EVENTS[name]) == payload


def test_ended() -> None:
    ended = Ended(FILE, FILE_GENERATION, Reason.GONE, 10)
    payload = notification("far.ended", fsnotify.NOTIFY_ENDED)
    assert fsnotify.decode_ended(payload) == ended
    assert fsnotify.decode_ended(memoryview(payload)) == ended
    assert fsnotify.encode_ended(ended) == payload


@pytest.mark.parametrize("name", MARKINGS)
def test_marking(name: str) -> None:
    dialect, marking = MARKINGS[name]
    opcode = fsnotify.MARK if dialect is Dialect.CURRENT else fsnotify_posted.POSTED_OPCODE
    payload = body(name, opcode)
    assert decode_marking(dialect, payload) == marking
    assert decode_marking(dialect, memoryview(payload)) == marking


def test_mark_as_a_client_packs_it() -> None:
    mask = Mask.CREATE | Mask.MODIFY
    assert fsnotify.MARK_IN.pack(GENERATION, mask, 0) == body("far.mark", fsnotify.MARK)
    limbo = fsnotify.MARK_IN.pack(FILE_GENERATION, 0, fsnotify.MarkFlag.LIMBO)
    assert limbo == body("far.limbo", fsnotify.MARK)


def test_what_init_asks_for() -> None:
    posted = body("v1.init", Opcode.INIT)
    minor, flags = fsnotify_posted.POSTED_MINOR, fsnotify_posted.POSTED_INIT
    assert INIT_IN_SHORT.unpack(posted) == (7, minor, 131072, flags)
    parented = INIT_IN.unpack_from(body("v3.init", Opcode.INIT))
    assert (parented[1], parented[3] | parented[4] << 32) == (
        fsnotify_posted.PARENTED_MINOR,
        Init.INIT_EXT | fsnotify_posted.PARENTED_INIT,
    )
    current = INIT_IN.unpack_from(body("far.init", Opcode.INIT))
    assert current[3] | current[4] << 32 == Init.INIT_EXT | fsnotify.HAVE_FSNOTIFY


def test_begin_and_take() -> None:
    version, merged = fsnotify.VERSION, fsnotify.Mode.MERGED
    assert fsnotify.BEGIN_IN.pack(version, merged, 0) == body("far.begin", fsnotify.BEGIN)
    assert fsnotify.TAKE_IN.pack(65536, 0) == body("far.take", fsnotify.TAKE)


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        (
            "far.begun",
            fsnotify.BEGIN_OUT.pack(
                fsnotify.VERSION, fsnotify.Mode.MERGED, fsnotify.KINDS, 0, 0x10_0000_0002
            ),
        ),
        ("far.marked", fsnotify.MARK_OUT.pack(Mask.CREATE, 0, 0x1234_5678_9ABC_DEF0)),
    ],
)
def test_answers(name: str, payload: bytes) -> None:
    header = OUT_HEADER.pack(OUT_HEADER.size + len(payload), 0, 2)
    assert header + payload == GOLDEN.messages[name]


def test_numbers_do_not_meet_those_given_out_one_by_one() -> None:
    # CUSE_INIT is 4096; CUSE_INIT and FUSE_INIT with their bytes swapped are reserved.
    assert not {fsnotify.BEGIN, fsnotify.MARK, fsnotify.TAKE} & {4096, 4096 << 8, 26 << 24}
    assert max(Opcode) < fsnotify.BEGIN
    # -1000 < error <= 0 is what fs/fuse/dev.c takes for a reply; a notification is beyond.
    assert 0 < fsnotify.NOTIFY_EVENT < fsnotify.NOTIFY_ENDED < 1 << 31
