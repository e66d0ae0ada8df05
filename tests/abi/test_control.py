"""The control channel's messages: there and back, and what is no message."""

from __future__ import annotations

import struct

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from farwatch.abi import control
from farwatch.abi.control import Hello, Late, Malformed, Watched, WatchFlag
from farwatch.abi.steps import BATCH, BATCH_ROOM, Op, Step, decode_batch, encode_batch, step_size

U8, U16, U32, U64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))
NAMES = st.binary(max_size=255).filter(control.is_name)
STEPS = st.builds(Step, U8, U64, NAMES, U64, NAMES, U32, U64, U64)
WATCHES = st.builds(Watched, U64, U32, U32)
FAILURES = st.tuples(U32, U32)
JUNK = st.binary(max_size=400)


# Golden bytes: written down by hand, so that a change of a layout is seen -------------


def test_ioctl_numbers_are_those_of_iowr() -> None:
    # asm-generic/ioctl.h: dir 3 << 30 | size << 16 | type << 8 | nr, size has 14 bits.
    assert control.HELLO == 0xFFFF_7701
    assert control.WAIT == 0xFFFF_7702
    assert control.WATCH == 0xFFFF_7703
    assert control.BUFFER_SIZE == (1 << 14) - 1


def test_marks_are_above_the_ids_of_systems_and_below_minus_one() -> None:
    assert control.FIRST_UID == 0xFA520000
    assert control.SEQUENCES == 0x10000
    assert control.LAST_UID < 0xFFFF_FFFE


def test_hello_on_the_wire() -> None:
    message = control.encode_hello(Hello(1, 0xFA520000, 7, b".hid"))
    assert message == bytes.fromhex("01000000 000052fa 07000000 0400") + b".hid"


def test_wait_on_the_wire() -> None:
    message = control.encode_wait(3, [(1, 116)], [Late(65535, 5)])
    assert message == bytes.fromhex(
        "0300000000000000 01000000 01000000 01000000 74000000 ffff0000 05000000"
    )


def test_batch_on_the_wire() -> None:
    step = Step(7, 1, b"a", 17, b"bc", 2, 5, 6)
    assert encode_batch(9, 1, 65535, [step]) == bytes.fromhex(
        "0900000000000000 01000000 ffff0000 01000000"
        "07 01 02 00 02000000 0100000000000000 1100000000000000"
        "0500000000000000 0600000000000000 61 6263"
    )


def test_watch_on_the_wire() -> None:
    (message,) = control.encode_watches(0, 250, [Watched(16, 7, 0x100)])
    assert message == bytes.fromhex("03000000 fa000000 01000000 1000000000000000 07000000 00010000")


# There and back ----------------------------------------------------------------------


@given(U64, U32, U32, st.lists(STEPS, max_size=20))
def test_batch(number: int, flags: int, sequence: int, steps: list[Step]) -> None:
    message = encode_batch(number, flags, sequence, steps)
    assert decode_batch(message) == (number, flags, sequence, steps)
    assert len(message) == BATCH.size + sum(map(step_size, steps))
    # The ioctl's buffer is longer than the message, and holds what was there before.
    assert decode_batch(message + b"\xff" * 40)[3] == steps


@given(U64, st.lists(FAILURES, max_size=30), st.lists(st.builds(Late, U32, U32), max_size=30))
def test_wait(number: int, failures: list[tuple[int, int]], late: list[Late]) -> None:
    message = control.encode_wait(number, failures, late)
    assert control.decode_wait(message) == (number, failures, late)


def test_wait_never_outgrows_the_buffer() -> None:
    for failures, late in ((5000, 0), (0, 5000), (5000, 5000), (1000, 5000)):
        message = control.encode_wait(
            1, [(index, 5) for index in range(failures)], [Late(n, 0) for n in range(late)]
        )
        assert len(message) <= control.BUFFER_SIZE
        _, failed, done = control.decode_wait(message)
        assert len(failed) == min(failures, (control.BUFFER_SIZE - 16) // 8)
        assert len(failed) + len(done) == (control.BUFFER_SIZE - 16) // 8


@given(U32, U32, NAMES.filter(bool), U32)
def test_hello(version: int, uid: int, hidden: bytes, generation: int) -> None:
    hello = Hello(version, uid, generation, hidden)
    assert control.decode_hello(control.encode_hello(hello) + bytes(20)) == hello


@given(st.integers(0, 7).map(lambda bits: bits * 4), U32, st.lists(WATCHES, max_size=20))
def test_watches(flags: int, microseconds: int, watches: list[Watched]) -> None:
    (message,) = control.encode_watches(flags, microseconds, watches)
    edges = WatchFlag.FIRST | WatchFlag.LAST
    assert control.decode_watches(message) == (flags | edges, microseconds, watches)


@pytest.mark.parametrize("more", [-1, 0, 1, control.WATCHES_PER_MESSAGE + 1])
def test_watches_in_several_messages(more: int) -> None:
    watches = [Watched(i, 1, 2) for i in range(control.WATCHES_PER_MESSAGE + more)]
    messages = list(control.encode_watches(WatchFlag.BY_PATH, 1, watches))
    assert len(messages) == -(-len(watches) // control.WATCHES_PER_MESSAGE)
    assert all(len(message) <= control.BUFFER_SIZE for message in messages)
    decoded = [control.decode_watches(message) for message in messages]
    assert [watch for _, _, part in decoded for watch in part] == watches
    firsts = [bool(flags & WatchFlag.FIRST) for flags, _, _ in decoded]
    lasts = [bool(flags & WatchFlag.LAST) for flags, _, _ in decoded]
    assert firsts == [True] + [False] * (len(messages) - 1)
    assert lasts == [False] * (len(messages) - 1) + [True]
    assert all(flags & WatchFlag.BY_PATH for flags, _, _ in decoded)


def test_a_scan_that_took_over_an_hour_is_capped() -> None:
    (message,) = control.encode_watches(0, 1 << 40, [])
    assert control.decode_watches(message)[1] == 0xFFFF_FFFF


def test_a_full_batch_fits_the_buffer() -> None:
    step = Step(Op.RENAME, 1, b"n" * 255, 2, b"m" * 255)
    count = BATCH_ROOM // step_size(step)
    assert len(encode_batch(1, 0, 0, [step] * count)) <= control.BUFFER_SIZE


# What is no message ------------------------------------------------------------------


@given(JUNK)
def test_junk_is_malformed_or_something_and_never_another_error(junk: bytes) -> None:
    for decode in (
        decode_batch,
        control.decode_wait,
        control.decode_watches,
        control.decode_hello,
    ):
        try:
            decode(memoryview(junk))
        except Malformed:
            pass


@given(st.lists(STEPS, min_size=1, max_size=5), st.data())
def test_a_cut_off_batch_is_malformed(steps: list[Step], data: st.DataObject) -> None:
    message = encode_batch(1, 0, 0, steps)
    cut = data.draw(st.integers(0, len(message) - 1))
    with pytest.raises(Malformed):
        decode_batch(message[:cut])


@given(st.lists(FAILURES, min_size=1, max_size=5), st.data())
def test_a_cut_off_wait_is_malformed(failures: list[tuple[int, int]], data: st.DataObject) -> None:
    message = control.encode_wait(1, failures)
    with pytest.raises(Malformed):
        control.decode_wait(message[: data.draw(st.integers(0, len(message) - 1))])


@given(st.lists(WATCHES, min_size=1, max_size=5), st.data())
def test_a_cut_off_watch_is_malformed(watches: list[Watched], data: st.DataObject) -> None:
    (message,) = control.encode_watches(0, 1, watches)
    with pytest.raises(Malformed):
        control.decode_watches(message[: data.draw(st.integers(0, len(message) - 1))])


@given(st.binary(min_size=1, max_size=40), st.data())
def test_a_cut_off_hello_is_malformed(hidden: bytes, data: st.DataObject) -> None:
    message = control.encode_hello(Hello(1, 2, 3, hidden))
    with pytest.raises(Malformed):
        control.decode_hello(message[: data.draw(st.integers(0, len(message) - 1))])


@pytest.mark.parametrize("count", [control.WATCHES_PER_MESSAGE + 1, 0xFFFF_FFFF])
def test_more_watches_than_there_is_room_for(count: int) -> None:
    with pytest.raises(Malformed):
        control.decode_watches(struct.pack("<III", 3, 0, count) + bytes(1 << 16))


@pytest.mark.parametrize("count", [control.BUFFER_SIZE // 8 + 1, 0xFFFF_FFFF])
def test_more_failures_than_there_is_room_for(count: int) -> None:
    with pytest.raises(Malformed):
        control.decode_wait(struct.pack("<QII", 1, count, 0) + bytes(1 << 16))
    with pytest.raises(Malformed):
        control.decode_wait(struct.pack("<QII", 1, 1, count) + bytes(1 << 16))


def test_a_huge_count_of_steps_ends_where_the_message_does() -> None:
    with pytest.raises(Malformed):
        decode_batch(struct.pack("<QIII", 1, 0, 0, 0xFFFF_FFFF) + bytes(4096))


def test_a_hello_without_a_hidden_name_is_malformed() -> None:
    with pytest.raises(Malformed):
        control.decode_hello(control.encode_hello(Hello(1, 2, 3, b"")))


@pytest.mark.parametrize("name", [b"..", b"a/b", b"/", b"../x", b"/etc/passwd", b"a\0b"])
def test_no_name_leads_out_of_the_mount(name: bytes) -> None:
    for step in (Step(5, 1, name), Step(7, 1, b"a", 1, name)):
        with pytest.raises(Malformed, match="path"):
            decode_batch(encode_batch(1, 0, 0, [Step(5, 1, b"a"), step]))
    with pytest.raises(Malformed):
        control.decode_hello(control.encode_hello(Hello(1, 2, 3, name)))


# PLACE ----------------------------------------------------------------------------------


@given(st.integers(0, 2**64 - 1), st.lists(st.binary(min_size=1, max_size=255), min_size=1))
def test_a_place_comes_back(above: int, names: list[bytes]) -> None:
    assume(all(b"/" not in name and b"\0" not in name and name != b".." for name in names))
    path = b"/".join(names)
    message = control.encode_place(above, path)
    assert control.decode_place(message + bytes(20)) == (above, path)
    assert struct.unpack_from("<QI", message) == (above, len(path))


@pytest.mark.parametrize("path", [b"", b"/", b"/a", b"a/", b"a//b", b"..", b"a/../b", b"a\0b"])
def test_a_path_that_may_lead_elsewhere_is_none(path: bytes) -> None:
    with pytest.raises(control.Malformed):
        control.decode_place(control.encode_place(1, path))


def test_a_place_that_is_cut_off() -> None:
    message = control.encode_place(1, b"a/b")
    for length in range(len(message)):
        with pytest.raises(control.Malformed):
            control.decode_place(message[:length])
