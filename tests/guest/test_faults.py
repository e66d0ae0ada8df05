"""Agent and virtual machine are killed while host and guest work: nobody is harmed.

No replay becomes a real operation, no content is wrong, the last word of every name agrees
with the disk, and the next start works.
"""

from __future__ import annotations

import random
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from farwatch.agent.endings import Status
from tests.conformance.stream import STRUCTURE, events_of
from tests.guest.conftest import Images
from tests.guest.load import DIRECTORY, Scene
from tests.guest.programs import Program
from tests.guest.stage import farwatch_daemon
from tests.guest.virtiofsd import Daemon

pytestmark = [pytest.mark.root, pytest.mark.guest]

KILLED_SECONDS = 10.0
"""A parked request is answered after a second."""
FEW, MANY = 1, 25
FEW_STARTS, MANY_STARTS = 1, 8


@pytest.fixture
def daemon(export: Path) -> Iterator[Daemon]:
    made = farwatch_daemon(export)
    try:
        yield made
    finally:
        made.close()


def rounds(few: int, many: int) -> list[object]:
    return [few, pytest.param(many, marks=[pytest.mark.long, pytest.mark.timeout(1500)])]


def kill(agent: Program) -> None:
    agent.signal(signal.SIGKILL)
    assert agent.wait(KILLED_SECONDS).status == -signal.SIGKILL


@pytest.mark.parametrize("count", rounds(FEW, MANY))
def test_the_agent_is_killed(count: int, images: Images, daemon: Daemon, export: Path) -> None:
    with Scene(images.of("6.12"), daemon, export) as scene:
        agent = scene.start_agent()
        scene.watch()
        for number in range(count):
            chance = random.Random(number)
            with scene.load(number):
                time.sleep(chance.uniform(0, 1.5))
                kill(agent)
                for _ in range(chance.randrange(3)):
                    # Some do not live long enough to be registered.
                    time.sleep(chance.uniform(0, 0.5))
                    agent = scene.start_agent(until_ready=False)
                    time.sleep(chance.uniform(0, 1.5))
                    kill(agent)
                time.sleep(chance.uniform(0, 0.5))
                agent = scene.start_agent()
            scene.require_right()


@pytest.mark.long
def test_another_agent_takes_over(images: Images, daemon: Daemon, export: Path) -> None:
    with Scene(images.of("6.12"), daemon, export) as scene:
        agent = scene.start_agent()
        scene.watch()
        with scene.load(1):
            for _ in range(2):
                other = scene.start_agent()
                assert agent.wait(KILLED_SECONDS).status == Status.REPLACED
                agent = other
        scene.require_right()


@pytest.mark.parametrize("count", rounds(FEW_STARTS, MANY_STARTS))
def test_the_machine_is_killed(count: int, images: Images, daemon: Daemon, export: Path) -> None:
    left: dict[str, str] = {}
    kept: dict[str, str] = {}
    for number in range(count + 1):
        chance = random.Random(number)
        with Scene(images.of("6.12"), daemon, export) as scene:
            scene.host, scene.kept = left, kept
            scene.require_unharmed()
            with scene.start_agent():
                scene.watch()
                with scene.load(number):
                    time.sleep(chance.uniform(0.5, 3))
                    if number < count:
                        scene.machine.kill()
                if number < count:
                    assert daemon.wait() == 0
                    scene.require_unharmed()
                else:
                    scene.require_right()


@pytest.mark.long
def test_what_happens_while_there_is_no_agent(images: Images, daemon: Daemon, export: Path) -> None:
    """It is told to the next one."""
    with Scene(images.of("6.12"), daemon, export) as scene:
        agent = scene.start_agent()
        scene.watch()
        (scene.directory / "old").touch()
        scene.settle()
        kill(agent)
        scene.watcher.forget()
        (scene.directory / "new").write_text("new")
        (scene.directory / "new").rename(scene.directory / "renamed")
        (scene.directory / "old").unlink()
        for _ in range(3):
            (scene.directory / "again").mkdir()
            (scene.directory / "again").rmdir()
        with scene.start_agent():
            scene.settle()
        heard = defaultdict(list)
        for event in events_of(scene.watcher.events):
            if event.watch == DIRECTORY and event.kind in STRUCTURE:
                heard[event.name].append(event.kind)
        assert heard == {
            "new": ["CREATE", "MOVED_FROM"],
            "renamed": ["MOVED_TO"],
            "old": ["DELETE"],
            "again": ["CREATE", "DELETE"] * 3,
        }
