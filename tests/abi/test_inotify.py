"""Parsing of what inotify delivers."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from farwatch.abi.inotify import InotifyEvent, parse
from farwatch.events import Mask
from farwatch.linux.inotify import IN_ALL_EVENTS, Inotify


def test_parses_names_with_their_padding() -> None:
    data = struct.pack("=iIII8s", 1, Mask.CREATE, 0, 8, b"abc")
    data += struct.pack("=iIII", -1, Mask.Q_OVERFLOW, 0, 0)
    assert parse(data) == [
        InotifyEvent(1, Mask.CREATE, 0, b"abc"),
        InotifyEvent(-1, Mask.Q_OVERFLOW, 0, b""),
    ]


@pytest.mark.parametrize("cut", [1, 15, 17, 23])
def test_refuses_a_torn_event(cut: int) -> None:
    data = struct.pack("=iIII8s", 1, Mask.CREATE, 0, 8, b"abc")
    with pytest.raises(ValueError, match="torn"):
        parse(data[:cut])


def test_agrees_with_the_kernel(tmp_path: Path) -> None:
    with Inotify() as inotify:
        watch = inotify.add(tmp_path, IN_ALL_EVENTS)
        (tmp_path / "a").mkdir()
        (tmp_path / "a").rename(tmp_path / ("b" * 255))
        buffer = bytearray(4096)
        events = parse(bytes(buffer[: inotify.read(buffer)]))
    cookie = events[1].cookie
    assert cookie
    assert events == [
        (watch, Mask.CREATE | Mask.ISDIR, 0, b"a"),
        (watch, Mask.MOVED_FROM | Mask.ISDIR, cookie, b"a"),
        (watch, Mask.MOVED_TO | Mask.ISDIR, cookie, b"b" * 255),
    ]
