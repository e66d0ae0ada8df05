"""A lock is granted when what was done before has been told (session/catchingup.py)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from fcntl import F_UNLCK, F_WRLCK

import pytest

from farwatch.events import Change, Kind
from farwatch.export import locks
from farwatch.session import belief
from tests.session.kernel import Agent, Batch
from tests.session.memory import MemoryDisk
from tests.session.test_belief import Believing
from tests.session.test_locks import Locking


class Scene:
    """A client that believes for long, an agent, and a file to lock."""

    def __init__(self, disk: MemoryDisk) -> None:
        self.client = Believing(disk)
        self.session = self.client.session
        self.is_behind = False
        self.session.is_behind = lambda: self.is_behind
        self.agent = Agent(self.client.kernel).register()
        self.locking = Locking(disk, self.client.kernel)
        self.fh = self.locking.open()
        self._do(self.agent.wait())

    def remote_change(self) -> None:
        """Something was done that the agent is to replay."""
        disk = self.client.disk
        place = disk.place("log")
        self.client.kernel.deliver(Change(Kind.CREATE, place, disk.do_file("log").key))

    def replay(self) -> None:
        """The agent does everything that there is."""
        batch = self.agent.woken()
        assert batch is not None
        self._do(batch)

    def _do(self, batch: Batch | None) -> None:
        while batch is not None:
            batch = self.agent.wait(batch.number)


@pytest.fixture
def scene(disk: MemoryDisk) -> Iterator[Scene]:
    made = Scene(disk)
    yield made
    made.session.close()


@pytest.fixture
def host(scene: Scene) -> Iterator[int]:
    fd = locks.another(scene.locking.memory, os.O_RDWR)
    yield fd
    os.close(fd)


def lock(scene: Scene) -> int:
    """The number of a SETLK that is parked."""
    locking = scene.locking
    assert locking.ask(32, scene.fh, 1, F_WRLCK) is None
    return scene.client.kernel.last_unique


def late(scene: Scene) -> tuple[int, int] | None:
    """After the pause that is made between two tries."""
    waiting = scene.session.waiting
    while waiting.due is not None and not waiting.may_have_answer:
        pass
    return scene.locking.late()


def test_at_once_if_nothing_is_on_its_way(scene: Scene) -> None:
    assert scene.locking.set(scene.fh, 1, F_WRLCK)


def test_when_what_is_on_its_way_is_replayed(scene: Scene, host: int) -> None:
    scene.remote_change()
    unique = lock(scene)
    assert not locks.set_lock(host, F_WRLCK, 0, 0), "it is locked already"
    scene.replay()
    assert late(scene) == (unique, 0)


def test_not_before_what_has_happened_is_read(scene: Scene) -> None:
    scene.is_behind = True
    unique = lock(scene)
    scene.is_behind = False
    assert late(scene) == (unique, 0)


def test_what_comes_later_is_not_waited_for(scene: Scene) -> None:
    """Else nobody would get a lock where something is always going on."""
    scene.is_behind = True
    unique = lock(scene)
    view = scene.session.view
    with view.lock:
        view.drains.begin()
        view.drains.end()
    assert scene.is_behind
    assert late(scene) == (unique, 0)


def test_a_reading_that_had_begun_may_have_missed_it(scene: Scene) -> None:
    view = scene.session.view
    with view.lock:
        view.drains.begin()
    scene.is_behind = True
    unique = lock(scene)
    with view.lock:
        view.drains.end()
    assert late(scene) is None
    with view.lock:
        view.drains.begin()
        view.drains.end()
    assert late(scene) == (unique, 0)


def test_not_for_ever(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farwatch.session.catchingup.LATE_SECONDS", 0.0)
    scene.is_behind = True
    assert scene.locking.set(scene.fh, 1, F_WRLCK)
    assert belief.LATE_SECONDS == 1.0


def test_a_lock_that_is_waited_for_catches_up_as_well(scene: Scene, host: int) -> None:
    assert locks.set_lock(host, F_WRLCK, 0, 0)
    unique = scene.locking.wait(scene.fh, 1, F_WRLCK)
    assert unique is not None
    scene.remote_change()
    assert locks.set_lock(host, F_UNLCK, 0, 0)
    scene.replay()
    assert late(scene) == (unique, 0)


def test_a_signal_does_not_take_back_what_is_locked(scene: Scene, host: int) -> None:
    scene.remote_change()
    unique = lock(scene)
    scene.locking.interrupt(unique)
    assert scene.locking.late() == (unique, 0)
    assert not locks.set_lock(host, F_WRLCK, 0, 0)


def test_a_signal_ends_the_wait_for_somebody_else_s_lock(scene: Scene, host: int) -> None:
    assert locks.set_lock(host, F_WRLCK, 0, 0)
    unique = scene.locking.wait(scene.fh, 1, F_WRLCK)
    assert unique is not None
    scene.remote_change()
    scene.locking.interrupt(unique)
    assert scene.locking.late() == (unique, errno.EINTR)


def test_nobody_waits_to_unlock(scene: Scene) -> None:
    assert scene.locking.set(scene.fh, 1, F_WRLCK)
    scene.remote_change()
    assert scene.locking.set(scene.fh, 1, F_UNLCK)
    assert scene.locking.wait(scene.fh, 1, F_UNLCK) is None


def test_nobody_waits_for_an_agent_that_is_not_there(disk: MemoryDisk) -> None:
    client = Believing(disk)
    locking = Locking(disk, client.kernel)
    assert locking.set(locking.open(), 1, F_WRLCK)
    client.session.close()
