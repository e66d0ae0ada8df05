"""abi/fsnotify*.py with what may come from a client or a server that means harm."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from farwatch.abi import fsnotify_posted
from farwatch.abi.fsnotify import (
    Dialect,
    Ended,
    Event,
    Malformed,
    Reason,
    Source,
    decode_ended,
    decode_event,
    decode_marking,
    encode_ended,
    encode_event,
)
from farwatch.abi.fsnotify_posted import decode_posted, decode_posted_marking, encode_posted
from farwatch.events import Mask
from tests.abi.golden.fsnotify import CAPTURE, parse

POSTED = (Dialect.POSTED, Dialect.AGGREGATED, Dialect.PARENTED)
MESSAGES = parse(CAPTURE.read_text()).messages
DECODERS: dict[str, Callable[[bytes], object]] = {
    "event": decode_event,
    "ended": decode_ended,
    f"marking {Dialect.CURRENT}": decode_marking,
    **{f"marking {dialect}": partial(decode_posted_marking, dialect) for dialect in POSTED},
    **{f"posted {dialect}": partial(decode_posted, dialect) for dialect in POSTED},
}
ENTRIES = Mask.CREATE | Mask.DELETE | Mask.MOVED_FROM | Mask.MOVED_TO
NOT_NAMES = (b"/", b"a/b", b"../etc", b".", b"..", b"\0", b"a\0b", b"n" * 256)

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
some_node = st.integers(1, 2**64 - 1)
names = st.binary(min_size=1, max_size=255).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)


def places(present: st.SearchStrategy[bool]) -> st.SearchStrategy[tuple[int, bytes, int]]:
    """A directory, a name and a generation, or none of the three."""
    return present.flatmap(
        lambda here: st.tuples(some_node, names, u32) if here else st.just((0, b"", 0))
    )


@st.composite
def events(draw: st.DrawFn) -> Event:
    parent, name, parent_generation = draw(places(st.booleans()))
    new_parent, new_name, new_parent_generation = draw(places(st.booleans()))
    return Event(
        draw(u32),
        draw(u64),
        parent,
        name,
        new_parent,
        new_name,
        draw(u32),
        draw(u32),
        parent_generation,
        new_parent_generation,
        draw(st.sampled_from(Source)),
        draw(u64),
        draw(u64),
    )


@given(events())
def test_every_event_comes_back(event: Event) -> None:
    assert decode_event(encode_event(event)) == event


@given(st.builds(Ended, u64, u32, st.sampled_from(Reason), u64))
def test_every_ending_comes_back(ended: Ended) -> None:
    assert decode_ended(encode_ended(ended)) == ended


@given(u32, some_node, u32, u32, names)
def test_every_posted_event_of_an_entry_comes_back(
    mask: int, node: int, generation: int, cookie: int, name: bytes
) -> None:
    for dialect in POSTED:
        event = Event(
            mask,
            0,
            node,
            name,
            cookie=0 if dialect is Dialect.PARENTED else cookie,
            parent_generation=0 if dialect is Dialect.POSTED else generation,
        )
        data = encode_posted(dialect, event, to_parent=True)
        assert decode_posted(dialect, data) == (event, True)


@given(u32, some_node, u32)
def test_every_posted_event_of_a_node_comes_back(mask: int, node: int, generation: int) -> None:
    for dialect in POSTED:
        event = Event(mask, node, generation=0 if dialect is Dialect.POSTED else generation)
        data = encode_posted(dialect, event, to_parent=False)
        assert decode_posted(dialect, data) == (event, False)


@given(st.integers(0, 0xFFF), some_node, some_node, u32, names)
def test_every_parented_event_of_a_child_comes_back(
    mask: int, node: int, parent: int, generation: int, name: bytes
) -> None:
    event = Event(mask & ~ENTRIES, node, parent, name, generation=generation)
    data = encode_posted(Dialect.PARENTED, event, to_parent=True)
    assert decode_posted(Dialect.PARENTED, data) == (event, True)


@given(st.sampled_from(sorted(DECODERS)), st.binary(max_size=400))
@example("event", b"")
def test_any_bytes_give_an_answer_or_malformed(which: str, data: bytes) -> None:
    try:
        DECODERS[which](data)
    except Malformed:
        pass


@given(
    st.sampled_from(sorted(DECODERS)),
    st.sampled_from(sorted(MESSAGES)),
    st.integers(0, 400),
    st.integers(0, 255),
)
def test_one_byte_changed_gives_an_answer_or_malformed(
    which: str, name: str, place: int, value: int
) -> None:
    data = bytearray(MESSAGES[name][16:])
    data[place % len(data)] = value
    try:
        DECODERS[which](bytes(data))
    except Malformed:
        pass


def bodies() -> list[tuple[str, str, bytes]]:
    """A decoder, a golden message that it takes, and the message's bytes."""
    found = []
    for name, data in MESSAGES.items():
        version, kind = name.split(".")[:2]
        dialect = dict(zip(("v1", "v2", "v3", "far"), Dialect, strict=True))[version]
        if kind == "init":
            continue
        if kind in ("add", "remove", "mark", "limbo"):
            found.append((f"marking {dialect}", name, data[40:]))
        elif dialect is not Dialect.CURRENT:
            found.append((f"posted {dialect}", name, data[16:]))
        elif kind in ("modify", "renamed", "overflow"):
            found.append(("event", name, data[16:]))
        elif kind == "ended":
            found.append(("ended", name, data[16:]))
    return found


@pytest.mark.parametrize(("which", "name", "data"), bodies(), ids=lambda value: str(value)[:24])
def test_every_truncation_and_a_byte_too_many(which: str, name: str, data: bytes) -> None:
    decode = DECODERS[which]
    decode(data)
    for length in range(len(data)):
        with pytest.raises(Malformed):
            decode(data[:length])
    with pytest.raises(Malformed):
        decode(data + b"\0")


@pytest.mark.parametrize("name", NOT_NAMES)
def test_what_is_not_a_name(name: bytes) -> None:
    with pytest.raises(Malformed):
        decode_event(encode_event(Event(Mask.CREATE, 0, 5, name)))
    renamed = Event(Mask.RENAME, 0, 5, b"good", 6, name)
    with pytest.raises(Malformed):
        decode_event(encode_event(renamed))
    for dialect in POSTED:
        data = encode_posted(dialect, Event(Mask.CREATE, 0, 5, name), to_parent=True)
        with pytest.raises(Malformed):
            decode_posted(dialect, data)


@pytest.mark.parametrize(
    "event",
    [
        Event(Mask.CREATE, 9, 5, b""),
        Event(Mask.CREATE, 9, 0, b"x"),
        Event(Mask.RENAME, 9, 5, b"x", 6, b""),
        Event(Mask.RENAME, 9, 5, b"x", 0, b"y"),
    ],
)
def test_a_name_goes_with_a_directory(event: Event) -> None:
    with pytest.raises(Malformed):
        decode_event(encode_event(event))


def test_lengths_that_only_add_up() -> None:
    # "xy" in the first and nothing in the second is as long as "x" and "y".
    data = bytearray(encode_event(Event(Mask.RENAME, 0, 5, b"x", 6, b"y")))
    data[64:68] = b"\2\0\0\0"
    with pytest.raises(Malformed):
        decode_event(bytes(data))


@pytest.mark.parametrize("source", [3, 255, 2**32 - 1])
def test_an_unknown_source(source: int) -> None:
    data = bytearray(encode_event(Event(Mask.MODIFY, 9)))
    data[52:56] = source.to_bytes(4, "little")
    with pytest.raises(Malformed):
        decode_event(bytes(data))


@pytest.mark.parametrize("reason", [0, 4, 2**32 - 1])
def test_an_unknown_reason(reason: int) -> None:
    data = bytearray(encode_ended(Ended(9, 1, Reason.GONE)))
    data[20:24] = reason.to_bytes(4, "little")
    with pytest.raises(Malformed):
        decode_ended(bytes(data))


@pytest.mark.parametrize("action", [2, 2**32 - 1])
def test_an_unknown_action(action: int) -> None:
    with pytest.raises(Malformed):
        decode_posted_marking(
            Dialect.POSTED, fsnotify_posted.POSTED_IN.pack(Mask.MODIFY, 0, action)
        )


@pytest.mark.parametrize("dialect", [Dialect.POSTED, Dialect.AGGREGATED])
@pytest.mark.parametrize("name", [b"\0" * 16, b"x" * 16, b"x\0y\0", b"\0x\0\0"])
def test_a_name_that_does_not_end_in_its_padding(dialect: Dialect, name: bytes) -> None:
    head = fsnotify_posted.POSTED_OUT.pack(5, Mask.CREATE, len(name), 0)
    if dialect is Dialect.AGGREGATED:
        head = fsnotify_posted.AGGREGATED_OUT.pack(5, Mask.CREATE, len(name), 0, 0)
    with pytest.raises(Malformed):
        decode_posted(dialect, head + name)


@pytest.mark.parametrize("size", [1, 2, 7, 300])
def test_a_shorter_or_longer_padding_is_understood(size: int) -> None:
    # A server is free to pad otherwise than inotify does.
    head = fsnotify_posted.POSTED_OUT.pack(5, Mask.CREATE, 1 + size, 0)
    event, to_parent = decode_posted(Dialect.POSTED, head + b"x" + b"\0" * size)
    assert (event.name, to_parent) == (b"x", True)


@pytest.mark.parametrize(
    ("parent", "name", "to_parent"), [(0, b"x", 1), (5, b"", 1), (5, b"x", 2), (5, b"x", 255)]
)
def test_a_child_without_its_place(parent: int, name: bytes, to_parent: int) -> None:
    head = fsnotify_posted.PARENTED_OUT.pack(9, parent, Mask.MODIFY, len(name), 0, to_parent)
    with pytest.raises(Malformed):
        decode_posted(Dialect.PARENTED, head + name)
