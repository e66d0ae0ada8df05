"""The guest is stopped, reset or has the mount taken away; what follows is as it should be."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from farwatch.agent.endings import Status
from tests.conformance.stream import STRUCTURE, events_of
from tests.guest.conftest import Images
from tests.guest.load import DIRECTORY, SECONDS, Scene
from tests.guest.stage import MNT, TAG, farwatch_daemon

pytestmark = [pytest.mark.root, pytest.mark.guest]

ROUNDS = 3
STOPS = 5


@pytest.fixture(scope="module")
def scene(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The same for all tests: what each leaves is what the next one finds."""
    export = tmp_path_factory.mktemp("export")
    daemon = farwatch_daemon(export)
    try:
        with Scene(images.of("6.12"), daemon, export) as made:
            yield made
    finally:
        daemon.close()


def structure(scene: Scene) -> dict[str, list[str]]:
    """What was heard of each name."""
    heard = defaultdict(list)
    for event in events_of(scene.watcher.events):
        if event.watch == DIRECTORY and event.kind in STRUCTURE:
            heard[event.name].append(event.kind)
    return dict(heard)


def test_what_happens_while_the_guest_is_stopped(scene: Scene) -> None:
    """It is told when the guest goes on."""
    with scene.start_agent() as agent:
        scene.watch()
        for number in range(ROUNDS):
            file, other = (scene.directory / f"{name}{number}" for name in ("file", "other"))
            file.write_text("old")
            scene.settle()
            scene.watcher.forget()
            scene.machine.stop()
            other.mkdir()
            file.rename(f"{file}.new")
            Path(f"{file}.new").write_text("new")
            other.rmdir()
            Path(f"{file}.new").unlink()
            scene.machine.cont()
            scene.settle()
            assert structure(scene) == {
                other.name: ["CREATE", "DELETE"],
                file.name: ["MOVED_FROM"],
                f"{file.name}.new": ["MOVED_TO", "DELETE"],
            }
        assert agent.is_running()
        assert agent.errors() == ""


def test_stopped_at_any_moment(scene: Scene) -> None:
    """While host and guest work: with requests under way, and some half answered."""
    chance = random.Random(1)
    with scene.start_agent() as agent:
        scene.watch()
        with scene.load(1):
            for _ in range(STOPS):
                time.sleep(chance.uniform(0, 0.5))
                scene.machine.stop()
                time.sleep(chance.uniform(0, 0.3))
                scene.machine.cont()
        scene.require_right()
        assert agent.is_running()
        assert agent.errors() == ""


@pytest.mark.long
def test_mounted_again(scene: Scene) -> None:
    """While the host goes on: what it does in between is no event, and all is right then."""
    for number in range(ROUNDS):
        with scene.start_agent() as agent:
            scene.watch()
            with scene.load(10 + number):
                time.sleep(0.3)
            scene.require_right()
            with scene.host_works(10 + number):
                scene.machine.check(["umount", MNT])
                done = agent.wait(SECONDS)
                assert (done.status, done.stderr) == (Status.GONE, b"")
                scene.machine.mount(TAG, MNT)
    with scene.start_agent():
        scene.watch()
        scene.require_right()


@pytest.mark.long
def test_reset_at_any_moment(scene: Scene) -> None:
    """The guest's work ends in the middle; what it has told of is there, and it starts again."""
    chance = random.Random(2)
    with scene.start_agent():
        scene.watch()
        with scene.load(20):
            time.sleep(chance.uniform(0.2, 2))
            scene.machine.reset()
    scene.require_unharmed()
    scene.machine.mount(TAG, MNT)
    with scene.start_agent():
        scene.watch()
        with scene.load(30):
            time.sleep(1)
        scene.require_right()
