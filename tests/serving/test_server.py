"""A server with no transport: requests by hand, a directory on the disk, a real source."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farwatch.events import Mask
from farwatch.export.tree import Export
from farwatch.serving.server import Server, open_modes
from farwatch.session.reply import Reply
from farwatch.session.session import Session
from farwatch.session.settings import Settings
from farwatch.sources.fanotify import FanotifySource
from tests.mounting.mounted import wait_until
from tests.session.kernel import (
    FIRST_UID,
    GENERATION,
    HIDDEN,
    ROOT,
    Agent,
    Kernel,
    batch_of,
    checked,
)
from tests.session.memory import MemoryDisk

pytestmark = pytest.mark.root


class Scene:
    """A client kernel, its agent, and what was sent to them."""

    def __init__(self, session: Session, sent: list[Reply]) -> None:
        self.kernel = Kernel(MemoryDisk(), session)
        self.kernel.init()
        self.agent = Agent(self.kernel).register()
        self.sent = sent

    def told(self, name: bytes) -> list[bytes]:
        """All names that the agent is told of until this one."""
        heard: list[bytes] = []
        done = 0
        while name not in heard:
            batch = self.agent.wait(done)
            if batch is None:
                wait_until(lambda: self.sent, "an answer")
                number, payload = checked(self.sent.pop(0), self.agent.parked)
                assert not number
                batch = batch_of(payload[16:])
            done = batch.number
            heard += [step.name for step in batch.steps]
        return heard


@contextmanager
def serving(
    directory: Path, *, longest_wait: float | None = None
) -> Iterator[tuple[Server, FanotifySource, Scene]]:
    os.umask(0)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    sent: list[Reply] = []
    with FanotifySource.open(fd) as source, Export(fd) as export:
        modes = open_modes(export)
        session = Session(
            export, Settings(GENERATION, HIDDEN, longest_wait=longest_wait), export, modes.mode
        )
        with Server(export, source, session, modes, sent.append) as server:
            yield server, source, Scene(session, sent)


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def test_changes_of_others_are_told_and_not_those_of_the_serving_thread(tmp_path: Path) -> None:
    with serving(tmp_path) as (_, _, scene):
        scene.kernel.mkdir("own")
        thread = threading.Thread(target=(tmp_path / "other").mkdir)
        thread.start()
        thread.join()
        assert set(scene.told(b"other")) == {b"other"}


def test_the_source_is_asked_for_what_is_watched(tmp_path: Path) -> None:
    with serving(tmp_path) as (server, source, scene):
        server.after()
        before = source.wanted
        scene.agent.watch([(1, GENERATION, int(Mask.OPEN | Mask.CLOSE_NOWRITE))])
        server.after()
        assert source.wanted & Mask.OPEN
        assert source.wanted & Mask.CLOSE_NOWRITE
        scene.agent.watch([])
        server.after()
        assert source.wanted == before


def test_what_waits_is_sent_after_a_request(tmp_path: Path) -> None:
    with serving(tmp_path) as (server, _, scene):
        done = 0
        while (batch := scene.agent.wait(done)) is not None:
            done = batch.number
        server.session.delivery.ask(1)
        server.after()
        assert scene.sent
        number, payload = checked(scene.sent.pop(), scene.agent.parked)
        assert (number, batch_of(payload[16:]).flags) == (0, 1)


def test_it_ends_with_its_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    with serving(tmp_path):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_what_is_due_is_done_although_a_step_came_last(tmp_path: Path) -> None:
    """An opener's step can come while the agent waits, and nothing after it for long."""
    with serving(tmp_path, longest_wait=0.01) as (server, _, scene):
        done = 0
        while (batch := scene.agent.wait(done)) is not None:
            done = batch.number
        scene.kernel.getattr(ROOT, uid=FIRST_UID, pid=scene.agent.pid)
        due = server.due
        assert due is not None
        wait_until(lambda: time.monotonic() >= due, "the time")
        server.tick()
        number, payload = checked(scene.sent.pop(), scene.agent.parked)
        assert (number, batch_of(payload[16:]).steps) == (0, [])
        assert server.due is None
