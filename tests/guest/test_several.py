"""Two guests and the host in one directory: each hears of the others, and once of itself."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from tests.conformance.client import Client, LocalClient
from tests.conformance.stream import STRUCTURE, Event, events_of, fold, mask_of
from tests.conformance.watcher import SENTINEL_WATCH, Actor
from tests.guest.conftest import Images
from tests.guest.initramfs import Image
from tests.guest.machine import Machine, Share
from tests.guest.stage import AGENT, MNT, TAG, GuestClient, farwatch_daemon

pytestmark = [pytest.mark.root, pytest.mark.guest]

FILES = 24
SECONDS = 60.0
HOST = "h"
WATCHED = "d"
PAUSES = {HOST: 0.05, "a": 0.0, "b": 0.0}
"""Seconds between two changes: the host is many times as fast as an emulated guest, and would
be through before the guests have begun."""
Told = Mapping[str, list[Event]]
"""Name → what was heard of it, in order."""


def work(who: str) -> list[list[str]]:
    """What one of them does, under names of its own in the common directory."""
    commands = []
    for number in range(FILES):
        name, directory = f"{WATCHED}/{who}{number}", f"{WATCHED}/{who}{number}.dir"
        commands += [
            ["write", name, who],
            ["append", name, "more"],
            ["mkdir", directory],
            ["rename", name, f"{name}.new"],
        ]
        if number % 2:
            commands.append(["unlink", f"{name}.new"])
        if number % 3:
            commands.append(["rmdir", directory])
    return commands


def watching(client: Client, stack: contextlib.ExitStack) -> Client:
    stack.callback(client.close)
    client.ask("start", base="")
    client.ask("group", group="a")
    client.ask("watch", watch=WATCHED, group="a", path=WATCHED, mask=mask_of("CHANGES"))
    return client


def watching_guest(image: Image, directory: Path, stack: contextlib.ExitStack) -> Client:
    daemon = farwatch_daemon(directory)
    stack.callback(daemon.close)
    machine = stack.enter_context(Machine(image, [Share(TAG, daemon)]))
    machine.mount(TAG, MNT)
    stack.enter_context(machine.start([*AGENT, MNT]))
    return watching(GuestClient(machine, MNT, f"guest {machine.pid}"), stack)


def told(client: Client) -> Told:
    events = defaultdict(list)
    for event in events_of(client.events):
        events[event.name].append(event)
    return events


def renamed_for(who: str, events: Iterable[Event]) -> list[Event]:
    """What the host has heard of a name of its own, as it is said of the same name of another."""
    return [
        event._replace(
            name=who + event.name.removeprefix(HOST),
            partner=event.partner.replace(f"/{HOST}", f"/{who}"),
        )
        for event in events
    ]


def structure(events: Iterable[Event]) -> list[Event]:
    return [event for event in events if event.kind in STRUCTURE]


def require_exactly(watcher: str, heard: Told, specification: Told) -> None:
    """``specification``: what the host's own kernel says of what the host itself has done."""
    expected = {
        one.name: (who, events)
        for who in PAUSES
        for events in (renamed_for(who, each) for each in specification.values())
        for one in events[:1]
    }
    assert heard.keys() == expected.keys()
    for name, (who, events) in expected.items():
        if who == watcher:
            assert fold(heard[name]) == fold(events), f"{watcher} of its own {name}"
        assert structure(heard[name]) == structure(events), f"{watcher} of {name}"
        kinds = {event.kinds for event in heard[name]}
        assert kinds == {event.kinds for event in events}, f"{watcher} of {name}"


def left_by_events(heard: Told) -> set[str]:
    """The names that are there, if nothing is known but what was heard."""
    last = {name: structure(events)[-1].kind for name, events in heard.items()}
    return {name for name, kind in last.items() if kind in {"CREATE", "MOVED_TO"}}


def test_all_write_at_once(images: Images, export: Path) -> None:
    (export / WATCHED).mkdir()
    (export / SENTINEL_WATCH).mkdir()
    image = images.of("6.12")
    with contextlib.ExitStack() as stack:
        clients: dict[str, Client] = {
            who: watching_guest(image, export, stack) for who in PAUSES if who != HOST
        }
        clients[HOST] = watching(LocalClient(str(export), "host"), stack)
        (export / SENTINEL_WATCH / "ready").touch()
        for client in clients.values():
            client.wait_for_sentinel("ready", ["a"])
        asked = {
            who: client.send("background", commands=work(who), pause=PAUSES[who])
            for who, client in clients.items()
        }
        for who, client in clients.items():
            assert not client.answer(asked[who], SECONDS).strip(), f"{who}: a command failed"
        (export / SENTINEL_WATCH / "end").touch()
        for client in clients.values():
            client.wait_for_sentinel("end", ["a"])
        heard = {who: told(client) for who, client in clients.items()}
        specification = {
            name: events for name, events in heard[HOST].items() if name.startswith(HOST)
        }
        assert set(left_by_events(specification)) == {
            path for path in os.listdir(export / WATCHED) if path.startswith(HOST)
        }
        listed = Actor(str(export)).do(["list", WATCHED])
        for who, client in clients.items():
            require_exactly(who, heard[who], specification)
            assert left_by_events(heard[who]) == set(os.listdir(export / WATCHED))
            assert client.ask("act", words=["list", WATCHED]) == listed
