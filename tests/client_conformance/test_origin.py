"""Whose doing an event was, with several clients on one server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple

import pytest

from farwatch.abi.fsnotify import Source
from tests.client_conformance.stage import ClientStage, Mode, Transport
from tests.conformance.client import Client
from tests.conformance.stream import kinds_of, mask_of
from tests.conformance.watcher import Actor

pytestmark = pytest.mark.root

GROUP = "a"
HOST = 0
"""The number of who is no client."""


class Made(NamedTuple):
    """An event, and whose doing it was."""

    kind: str
    name: str
    source: Source
    client: int


class Pair:
    """Two clients that watch ``d`` on one server."""

    def __init__(self, stage: ClientStage, one: Client, other: Client) -> None:
        self.stage = stage
        self.one, self.other = one, other
        self.host = Actor(str(stage.acting))
        self.numbers = {client: int(client.ask("number")) for client in (one, other)}

    def watch(self, mask: str) -> None:
        for client in (self.one, self.other):
            client.ask("start", base="")
            client.ask("group", group=GROUP)
            client.ask("watch", watch="d", group=GROUP, path="d", mask=mask_of(mask))

    def heard(self, client: Client) -> list[Made]:
        """What a client has heard of so far."""
        for _ in range(2):
            client.wait_for_sentinel(self.stage.sentinel(), [GROUP])
        return [
            Made(kinds_of(event.mask), event.name, Source(event.source), event.client)
            for event in client.events
        ]

    def seen_by(self, client: Client, maker: Client | None) -> tuple[Source, int]:
        """What ``client`` is to be told of who has made something; None is the host."""
        if maker is None:
            return Source.REMOTE, HOST
        return Source.LOCAL if maker is client else Source.REMOTE, self.numbers[maker]


@contextmanager
def pair(mode: Mode) -> Iterator[Pair]:
    with ClientStage(Transport.UNIX, mode) as stage:
        (stage.acting / "d").mkdir()
        with closing(stage.another_client()) as other:
            yield Pair(stage, stage.client(), other)


@pytest.mark.parametrize("mode", [Mode.REMOTE, Mode.MERGED])
def test_each_event_says_who_made_it(mode: Mode) -> None:
    with pair(mode) as made:
        made.watch("CREATE|DELETE|MOVED_FROM|MOVED_TO|ATTRIB")
        for maker, name in ((made.one, "one"), (made.other, "other"), (None, "host")):
            for words in (
                ["mkfile", f"d/{name}"],
                ["chmod", f"d/{name}", "600"],
                ["rename", f"d/{name}", f"d/{name}-2"],
                ["unlink", f"d/{name}-2"],
            ):
                if maker is None:
                    made.host.do(words)
                else:
                    maker.ask("act", words=words)
                # One after the other: what waits together may be told in another order.
                made.heard(made.one), made.heard(made.other)
        for client in (made.one, made.other):
            assert made.heard(client) == [
                Made(kind, name + ending, *made.seen_by(client, maker))
                for maker, name in ((made.one, "one"), (made.other, "other"), (None, "host"))
                for kind, ending in (
                    ("CREATE", ""),
                    ("ATTRIB", ""),
                    ("MOVED_FROM", ""),
                    ("MOVED_TO", "-2"),
                    ("DELETE", "-2"),
                )
            ]


@pytest.mark.parametrize("mode", [Mode.REMOTE, Mode.MERGED])
def test_clients_have_different_numbers_and_keep_them(mode: Mode) -> None:
    with pair(mode) as made:
        one, other = made.numbers.values()
        assert one != other
        assert HOST not in (one, other)
        with closing(made.stage.another_client()) as third:
            assert int(third.ask("number")) not in (HOST, one, other)
        assert int(made.one.ask("number")) == one


@pytest.mark.parametrize("mode", [Mode.REMOTE, Mode.MERGED])
def test_reading_and_writing_say_who_did_it(mode: Mode) -> None:
    """Also of a file that several have open at once."""
    with pair(mode) as made:
        made.host.do(["write", "d/x", "hello"])
        made.watch("ALL")
        made.stage.wait_for_reading(mask_of("READING"))
        made.one.ask("act", words=["open", "h", "rw", "d/x"])
        made.heard(made.one)
        made.other.ask("act", words=["read", "d/x"])
        made.heard(made.one)
        made.one.ask("act", words=["put", "h", "more"])
        made.heard(made.one)
        made.host.do(["append", "d/x", "text"])
        made.heard(made.one)
        made.one.ask("act", words=["close", "h"])
        expected = [
            (made.one, ["OPEN"]),
            (made.other, ["OPEN", "ACCESS", "CLOSE_NOWRITE"]),
            (made.one, ["MODIFY"]),
            (None, ["OPEN", "MODIFY", "CLOSE_WRITE"]),
            (made.one, ["CLOSE_WRITE"]),
        ]
        for client in (made.one, made.other):
            assert made.heard(client) == [
                Made(kind, "x", *made.seen_by(client, maker))
                for maker, kinds in expected
                for kind in kinds
            ]
