"""An agent that is killed, frozen or slow: no replay is lost, doubled, or turned real."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from farwatch.events import Mask
from farwatch.mounting.agentprocess import AgentProcess
from tests.faults.faulty import FaultyArea, Listener, frozen, known_to_the_server
from tests.mounting.mounted import wait_until

pytestmark = pytest.mark.root

RESTART_SECONDS = 1.0


def kill(area: FaultyArea) -> int:
    agent = area.agent()
    os.kill(agent, signal.SIGKILL)
    return agent


def test_another_is_at_work_within_a_second(area: FaultyArea) -> None:
    """The best of a few: a machine that is busy otherwise says nothing of it."""
    with area.faulty(), Listener(area.mnt) as listener:
        known_to_the_server(area, listener)
        took = []
        for number in range(5):
            began = time.monotonic()
            killed = kill(area)
            (area.src / f"f{number}").touch()
            listener.hear_of(Mask.CREATE, f"f{number}")
            took.append(time.monotonic() - began)
            assert area.agent() != killed
            if took[-1] < RESTART_SECONDS:
                break
        assert min(took) < RESTART_SECONDS, took
        assert listener.impossible == []


@pytest.mark.long
def test_one_that_dies_time_and_again(area: FaultyArea) -> None:
    """As soon as it lives, it delivers."""
    with area.faulty(), Listener(area.mnt) as listener:
        known_to_the_server(area, listener)
        for _ in range(4):
            killed = kill(area)
            wait_until(lambda: killed not in area.agents(), "its end")  # noqa: B023
        (area.src / "f").touch()
        listener.hear_of(Mask.CREATE, "f")
        assert area.said().count("the agent ended (killed by SIGKILL); starting another") == 4


def test_pauses_come_late_and_are_short() -> None:
    made = AgentProcess()
    made._since = time.monotonic()
    pauses = [made.pause_before_another(-9) for _ in range(40)]
    assert set(pauses[:20]) == {0.05}
    assert pauses[20:] == sorted(pauses[20:])
    assert pauses[-1] == max(pauses) < RESTART_SECONDS
    made._since -= 10
    assert made.pause_before_another(-9) == 0.05


def rounds(few: int, many: int) -> list[object]:
    return [few, pytest.param(many, marks=[pytest.mark.long, pytest.mark.timeout(900)])]


@pytest.mark.parametrize("count", rounds(2, 40))
def test_nothing_is_lost_doubled_or_turned_real(area: FaultyArea, count: int) -> None:
    """Wherever it dies, each name's story is a possible one, and ends as the disk does.

    Each name is removed and made anew all the time: an old DELETE that was done for real
    would take the new file.
    """
    with area.faulty(), Listener(area.mnt) as listener:
        known_to_the_server(area, listener)
        chance = random.Random(count)
        for turn in range(count):
            killed = area.agent()
            work(area, chance, 60)
            os.kill(killed, signal.SIGKILL)
            work(area, chance, 60)
            wait_until(lambda: area.agents() not in ([], [killed]), "another")  # noqa: B023
            if turn % 3 == 0:
                work(area, chance, 60)
            listener.hear_until(set(os.listdir(area.src)))
        (area.src / "last").touch()
        listener.hear_of(Mask.CREATE, "last")
        assert listener.impossible == []
        assert listener.names == set(os.listdir(area.src)) == set(os.listdir(area.mnt))
        for name in os.listdir(area.src):
            assert (area.mnt / name).read_bytes() == (area.src / name).read_bytes()
            assert (area.mnt / name).stat().st_nlink == (area.src / name).stat().st_nlink


NAMES = [f"n{number}" for number in range(6)]


def work(area: FaultyArea, chance: random.Random, steps: int) -> None:
    """Makes, removes, renames and writes files in SRC; what each holds is never twice the same."""
    for _ in range(steps):
        name = area.src / chance.choice(NAMES)
        if not name.exists():
            name.write_text(f"{chance.random()}")
            continue
        kind = chance.randrange(4)
        if kind == 0:
            name.unlink()
        elif kind == 1:
            name.rename(area.src / chance.choice(NAMES))
        elif kind == 2:
            with name.open("a") as file:
                file.write("more")
        else:
            name.unlink()
            name.write_text(f"{chance.random()}")


@pytest.mark.long
def test_a_slow_one(area: FaultyArea) -> None:
    """It gets on for a moment now and then: everything is told in the end, and truly."""
    with area.faulty(replays=100), Listener(area.mnt) as listener:
        known_to_the_server(area, listener)
        chance = random.Random(1)
        for _ in range(4):
            with frozen(area.agent()):
                work(area, chance, 150)
                time.sleep(0.6)  # longer than the launcher lets one hold up the others
                work(area, chance, 150)
            listener.hear(0.05)
        listener.hear_until(set(os.listdir(area.src)))
        (area.src / "last").touch()
        listener.hear_of(Mask.CREATE, "last")
        assert listener.impossible == []
        assert listener.names == set(os.listdir(area.src))
        for name in os.listdir(area.src):
            assert (area.mnt / name).read_bytes() == (area.src / name).read_bytes()
