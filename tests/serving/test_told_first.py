"""The reply to a change of names comes behind what happened before."""

from __future__ import annotations

import os

import pytest

from farwatch.abi.fsnotify import Event, decode_event
from farwatch.events import Mask
from tests.serving.area import Area
from tests.serving.wire import EVENT, MERGED, REMOTE, Client, connected
from tests.session.kernel import ROOT

pytestmark = pytest.mark.root

NAMES = int(Mask.CREATE | Mask.DELETE | Mask.MOVED_FROM | Mask.MOVED_TO)


def told_already(client: Client) -> list[tuple[int, bytes]]:
    """Kinds and names of what was on the wire before the last reply."""
    events: list[Event] = []
    for code, payload in client.wire.notices:
        assert code == EVENT
        events.append(decode_event(payload))
    client.wire.notices.clear()
    return [(event.mask & ~Mask.ISDIR, event.name) for event in events]


@pytest.mark.parametrize("mode", [REMOTE, MERGED])
def test_what_others_did_before(area: Area, mode: int) -> None:
    with area.serving() as server, connected(server.address) as client:
        client.begin(mode).mark(ROOT, NAMES)
        own = [(int(Mask.DELETE), b"x")] if mode == REMOTE else []
        for _ in range(100):
            (area.directory / "x").mkdir()
            client.rmdir("x")
            assert told_already(client) == [(int(Mask.CREATE), b"x"), *own]


@pytest.mark.parametrize("mode", [REMOTE, MERGED])
def test_more_than_is_sent_at_once(area: Area, mode: int) -> None:
    """More than the room for notifications, which nobody has read."""
    names = [b"%0200d" % number for number in range(1000)]
    with area.serving() as server, connected(server.address) as client:
        client.begin(mode).mark(ROOT, NAMES)
        for name in names:
            os.mkdir(os.fsencode(area.directory) + b"/" + name)
        client.rename(names[0], b"new")
        told = told_already(client)
        assert told[: len(names)] == [(int(Mask.CREATE), name) for name in names]
        assert len(told) == len(names) + (mode == REMOTE)


@pytest.mark.parametrize("mode", [REMOTE, MERGED])
def test_two_clients_take_turns(area: Area, mode: int) -> None:
    with (
        area.serving() as server,
        connected(server.address) as client,
        connected(server.address) as other,
    ):
        client.begin(mode).mark(ROOT, NAMES)
        other.begin(mode).mark(ROOT, NAMES)
        made, gone = int(Mask.CREATE), int(Mask.DELETE)
        heard: dict[Client, list[tuple[int, bytes]]] = {client: [], other: []}
        for _ in range(100):
            client.mkdir("x")
            other.rmdir("x")
            heard[other] += told_already(other)
            assert heard[other][-1] == ((gone if mode == REMOTE else made), b"x")
            other.mkdir("y")
            client.rmdir("y")
            heard[client] += told_already(client)
            assert heard[client][-1] == ((gone if mode == REMOTE else made), b"y")
        every = [(made, b"x"), (gone, b"x"), (made, b"y"), (gone, b"y")] * 100
        for each, own in ((client, every[0:4:3]), (other, every[1:3])):
            left = every if mode == REMOTE else [what for what in every if what not in own]
            got = heard[each] + told_already(each)
            assert got == left[: len(got)]
            assert len(left) - len(got) <= 2
