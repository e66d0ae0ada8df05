"""The first line each way, and messages out of a stream, however it comes in pieces."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farwatch.abi import stream
from farwatch.abi.stream import Incoming, Malformed, Refused


def message(size: int, fill: int = 7) -> bytes:
    return struct.pack("<I", size) + bytes([fill]) * (size - 4)


def pour(incoming: Incoming, data: bytes) -> list[bytes]:
    """Everything in, as a socket would give it; what comes out."""
    found = []
    while data:
        room = incoming.room()
        assert len(room) > 0
        size = min(len(room), len(data))
        room[:size] = data[:size]
        incoming.received(size)
        data = data[size:]
        while (out := incoming.next_message()) is not None:
            found.append(bytes(out))
    return found


def test_the_lines_are_these() -> None:
    assert stream.encode_hello() == b"FARWATCH/1\n"
    assert stream.encode_hello("secret") == b"FARWATCH/1 secret\n"
    assert stream.encode_ok() == b"FARWATCH/1 ok\n"
    assert stream.encode_no("wrong token") == b"FARWATCH/1 no wrong token\n"
    assert stream.decode_hello(b"FARWATCH/1") == ""
    assert stream.decode_hello(b"FARWATCH/1 ") == ""
    assert stream.decode_hello(b"FARWATCH/1 secret") == "secret"
    stream.decode_answer(b"FARWATCH/1 ok")
    with pytest.raises(Refused, match=r"^wrong token$"):
        stream.decode_answer(b"FARWATCH/1 no wrong token")


@pytest.mark.parametrize(
    "line", [b"", b"HTTP/1.1", b"FARWATCH/2 x", b"FARWATCH/1 a b", b"FARWATCH/1 \xff", b"FARWATCH"]
)
def test_what_is_no_greeting(line: bytes) -> None:
    with pytest.raises(Malformed):
        stream.decode_hello(line)


@pytest.mark.parametrize(
    "line", [b"", b"FARWATCH/1", b"FARWATCH/2 ok", b"FARWATCH/1 okay", b"\xff"]
)
def test_what_is_no_answer(line: bytes) -> None:
    with pytest.raises(Malformed):
        stream.decode_answer(line)


@pytest.mark.parametrize("token", ["", "a b", "a\n", "ä", "x" * 4096, "\x7f"])
def test_what_is_no_token(token: str) -> None:
    assert not stream.is_token(token)
    with pytest.raises(ValueError, match="token"):
        stream.encode_hello(token)


def test_the_longest_token_fits_into_a_line() -> None:
    token = "x" * (stream.LONGEST_LINE - len("FARWATCH/1 \n"))
    line = stream.encode_hello(token)
    assert len(line) == stream.LONGEST_LINE
    incoming = Incoming(stream.SHORTEST_REQUEST)
    incoming.feed(line)
    assert incoming.next_line() == line[:-1]


def test_a_reason_is_one_printable_line_that_fits() -> None:
    line = stream.encode_no("ä\n\x1b" + "x" * 5000)
    assert line.startswith(b"FARWATCH/1 no ???xxx")
    assert line.count(b"\n") == 1
    assert len(line) == stream.LONGEST_LINE
    with pytest.raises(Refused, match=r"^\?\?$"):
        stream.decode_answer(b"FARWATCH/1 no \x1b\xff".rstrip(b"\n"))


def test_a_line_that_does_not_end() -> None:
    incoming = Incoming(stream.SHORTEST_REQUEST)
    incoming.feed(b"x" * 4095)
    assert incoming.next_line() is None
    incoming.feed(b"x")
    with pytest.raises(Malformed, match="4096"):
        incoming.next_line()


@given(
    sizes=st.lists(st.integers(40, 200_000), max_size=8),
    cuts=st.lists(st.integers(1, 100_000), max_size=20),
)
def test_messages_come_out_as_they_went_in(sizes: list[int], cuts: list[int]) -> None:
    messages = [message(size, index) for index, size in enumerate(sizes)]
    data = stream.encode_hello() + b"".join(messages)
    incoming = Incoming(stream.SHORTEST_REQUEST)
    incoming.feed(data[:11])
    assert incoming.next_line() == b"FARWATCH/1"
    data = data[11:]
    found = []
    for cut in [*cuts, len(data)]:
        found += pour(incoming, data[:cut])
        data = data[cut:]
    found += pour(incoming, data)
    assert found == messages
    assert incoming.is_between


def test_the_longest_message_and_no_more() -> None:
    longest = message(stream.LONGEST_MESSAGE)
    incoming = Incoming(stream.SHORTEST_REQUEST)
    assert pour(incoming, longest * 2) == [longest] * 2
    with pytest.raises(Malformed, match="1052673"):
        pour(incoming, struct.pack("<I", stream.LONGEST_MESSAGE + 1))


@pytest.mark.parametrize("length", [0, 1, 39, 0x8000_0000, 0xFFFF_FFFF])
def test_impossible_lengths_are_told_before_anything_else_comes(length: int) -> None:
    incoming = Incoming(stream.SHORTEST_REQUEST)
    incoming.feed(struct.pack("<I", length))
    with pytest.raises(Malformed, match=str(length)):
        incoming.next_message()
    assert len(incoming.room()) <= stream.LONGEST_MESSAGE


def test_a_reply_may_be_shorter_than_a_request() -> None:
    assert pour(Incoming(stream.SHORTEST_REPLY), message(16)) == [message(16)]
    with pytest.raises(Malformed):
        pour(Incoming(stream.SHORTEST_REPLY), message(15))


def test_a_message_can_be_written_to() -> None:
    incoming = Incoming(stream.SHORTEST_REQUEST)
    incoming.feed(message(40))
    found = incoming.next_message()
    assert found is not None
    found[24:32] = b"\0" * 8
    assert bytes(found[24:32]) == b"\0" * 8


def test_what_a_large_message_has_needed_is_given_back() -> None:
    incoming = Incoming(stream.SHORTEST_REQUEST)
    pour(incoming, message(stream.LONGEST_MESSAGE))
    assert len(incoming.room()) <= 1 << 16
