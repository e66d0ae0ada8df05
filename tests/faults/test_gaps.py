"""Whatever is lost on the way, each watcher is brought to the truth."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from farwatch.events import Mask
from tests.faults.faulty import MANY, FaultyArea, Listener, frozen, known_to_the_server
from tests.mounting.mounted import wait_until

pytestmark = pytest.mark.root


def prepare(src: Path) -> None:
    for name in ("kept", "gone", "moved", "written", "changed", "replaced"):
        (src / name).write_text(name)
    (src / "out").mkdir()


def change(src: Path) -> None:
    """One of each kind."""
    (src / "gone").unlink()
    (src / "moved").rename(src / "there")
    (src / "written").write_text("something else")
    (src / "changed").chmod(0o600)
    (src / "replaced").unlink()
    (src / "replaced").mkdir()
    (src / "new").write_text("new")
    (src / "sub").mkdir()


def require_told(listener: Listener) -> None:
    listener.hear_of(Mask.MODIFY, "written")
    listener.hear_of(Mask.CLOSE_WRITE, "written")
    listener.hear_of(Mask.ATTRIB, "changed")
    listener.hear_of(Mask.CLOSE_WRITE, "new")
    assert listener.told("kept") == []
    assert [kind & (Mask.CREATE | Mask.DELETE) for kind in listener.told("gone")][-1] == Mask.DELETE
    assert listener.told("moved")[-1] & Mask.MOVED_FROM
    assert any(kind & Mask.MOVED_TO for kind in listener.told("there"))


def flood(src: Path, count: int) -> None:
    """So many events, of a file that is not there before nor after."""
    for number in range(count // 2):
        name = src / f"flood{number % 7}-{number}"
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
        name.unlink()


def test_the_sources_queue_overflows(area: FaultyArea) -> None:
    """While the server does not run; what it reads then is part of a story at most."""
    prepare(area.src)
    with area.faulty("limited") as supervisor, Listener(area.mnt) as listener:
        known_to_the_server(area, listener)
        with frozen(area.server(supervisor)):
            flood(area.src, MANY)
            change(area.src)
        wait_until(lambda: "overflowed" in area.said(), "a word of the overflow")
        listener.hear_until(set(os.listdir(area.src)))
        require_told(listener)
        assert listener.impossible == []
        (area.src / "after").touch()
        listener.hear_of(Mask.CREATE, "after")
        assert set(os.listdir(area.mnt)) == set(os.listdir(area.src))
        assert (area.mnt / "written").read_text() == "something else"


@pytest.mark.parametrize(
    "again",
    [
        pytest.param(False, id="frozen"),
        pytest.param(True, id="killed when it wakes", marks=pytest.mark.long),
    ],
)
def test_an_agent_does_not_get_on(area: FaultyArea, again: bool) -> None:
    prepare(area.src)
    with area.faulty(replays=200), Listener(area.mnt) as listener:
        known_to_the_server(area, listener)
        agent = area.agent()
        with frozen(agent):
            (area.src / "first").touch()
            while "held back" not in area.said():
                flood(area.src, 200)
            change(area.src)
        if again:
            os.kill(agent, 9)
        listener.hear_until(set(os.listdir(area.src)))
        require_told(listener)
        assert listener.impossible == []
        (area.src / "after").touch()
        listener.hear_of(Mask.CREATE, "after")
        for name in os.listdir(area.src):
            assert (area.mnt / name).is_dir() == (area.src / name).is_dir()
