"""A daemon that was killed and is started again, under a front end that goes on."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest

from farwatch.transports.vhost.frontend import Pending
from tests.session.kernel import HELLO, LOOKUP, MKDIR, UNLINK, Refused, checked
from tests.virtiofsd.daemon import Area
from tests.virtiofsd.guest import Guest, GuestAgent

pytestmark = pytest.mark.root

IF_NONE = 1
"""HELLO only if there is no other agent."""


@contextmanager
def restarted(area: Area, guest: Guest, *options: str) -> Iterator[None]:
    """Another daemon at the same place, and the guest goes on with it."""
    with area.serving(*options) as process:
        guest.go_on(area.connect(process))
        yield


def test_the_guest_goes_on_without_an_init(area: Area) -> None:
    (area.src / "d").mkdir()
    (area.src / "d" / "file").write_text("content")
    with area.serving("--cache=metadata") as process, area.guest() as guest:
        guest.init(flags2=0)
        before = [guest.walk("d").node, guest.walk("d/file").node]
        fh = guest.open(before[1]).fh
        directory = guest.opendir(before[0]).fh
        process.kill()
        process.wait()
        with restarted(area, guest, "--cache=metadata"):
            for node in before:
                with pytest.raises(Refused, match="ESTALE"):
                    guest.getattr(node)
            with pytest.raises(Refused, match="ESTALE"):
                guest.unlink("file", before[0])
            for ask in (
                lambda: guest.read(before[1], fh),
                lambda: guest.write(before[1], fh, b"x"),
                lambda: guest.readdir(directory, before[0]),
                lambda: guest.release(before[1], fh),
            ):
                with pytest.raises(Refused, match="EBADF"):
                    ask()
            guest.forget(before[1], 1)
            # The VFS looks the path up again, from the root.
            after = [guest.walk("d").node, guest.walk("d/file").node]
            assert not set(before) & set(after)
            opened = guest.open(after[1])
            assert opened.fh != fh
            assert opened.flags & 1, "as was agreed on, and as the options say"
            assert guest.read(after[1], opened.fh) == b"content"
    assert (area.src / "d" / "file").read_text() == "content"


def test_no_id_is_given_twice(area: Area) -> None:
    """Neither of a node nor of an open file, by however many daemons."""
    (area.src / "file").touch()
    given: list[tuple[int, int, int]] = []
    with area.serving() as process, area.guest() as guest:
        guest.init()
        for _ in range(4):
            node = guest.lookup("file").node
            given.append((node, guest.open(node).fh, guest.opendir().fh))
            process.kill()
            process.wait()
            process = area.start()
            guest.go_on(area.connect(process))
        process.kill()
        process.wait()
    for kind in zip(*given, strict=True):
        assert len(set(kind)) == 4


def test_without_the_buffer_an_init_is_needed(area: Area) -> None:
    """A front end that kept nothing has another guest, or one that says INIT."""
    with area.serving("--keep"):
        with area.guest() as guest:
            guest.init()
        with area.guest() as guest:
            with pytest.raises(Refused, match="EIO"):
                guest.getattr(1)
            guest.init()
            guest.getattr(1)


def test_the_agent_registers_again(area: Area) -> None:
    with area.serving() as process, area.guest() as guest:
        guest.init()
        agent = guest.start_agent()
        done, _ = told(agent, area, "before")
        parked = agent.submit_wait(done)
        process.kill()
        process.wait()
        (area.src / "while-nobody-was-there").touch()
        with restarted(area, guest):
            # The parked WAIT is taken again, and says that the agent is not known.
            with pytest.raises(Refused, match="EPERM"):
                agent.waited(parked)
            with pytest.raises(Refused, match="EPERM"):
                agent.waited(agent.submit_wait(done))
            agent.register()
            told(agent, area, "after")
            # Its descriptor is one of the dead daemon's; closing it is its end all the same.
            with pytest.raises(Refused, match="EBADF"):
                guest.releasedir(1, agent.fh)
            assert GuestAgent(guest).ioctl(HELLO, struct.pack("<II", 1, IF_NONE))


def told(agent: GuestAgent, area: Area, name: str) -> tuple[int, list[bytes]]:
    (area.src / name).touch()
    done = 0
    while True:
        done, names = agent.hear(done)
        if name.encode() in names:
            return done, names


def test_a_replay_of_the_old_daemon_is_refused_by_the_new(area: Area) -> None:
    """What stands behind the name by now is somebody's real file."""
    (area.src / "x").write_text("old")
    with area.serving() as process, area.guest() as guest:
        guest.init()
        agent = guest.start_agent()
        guest.lookup("x")
        (area.src / "x").unlink()
        done = 0
        while True:
            batch = agent.waited(agent.submit_wait(done))
            done = batch.number
            if batch.steps and batch.steps[-1].name == b"x":
                break
        mark = batch.mark(batch.steps[-1].op)
        process.kill()
        process.wait()
        (area.src / "x").write_text("new")
        with restarted(area, guest):
            for _ in range(2):
                for opcode in (LOOKUP, UNLINK):
                    with pytest.raises(Refused, match="EPERM"):
                        guest.ask(opcode, 1, b"x\0", uid=mark, pid=agent.pid)
                agent.register()
    assert (area.src / "x").read_text() == "new"


def test_what_was_in_flight_is_not_done_twice(area: Area) -> None:
    """It was taken by a daemon that died before it could answer.

    The front end's side of that: the daemon is stopped, so that it cannot answer; the
    entry is made as the daemon makes it; and the ring goes on behind it.
    """
    (area.src / "x").write_text("made since")
    with area.serving() as process, area.guest() as guest:
        guest.init()
        process.kill()
        process.wait()
        asked = {
            "unlink": guest.submit(UNLINK, 1, b"x\0"),
            "lookup": guest.submit(LOOKUP, 1, b"x\0"),
        }
        mark_as_taken(guest, [pending.head for _, pending in asked.values()])
        with restarted(area, guest):
            with pytest.raises(Refused, match="EIO"):
                guest.reply(asked["unlink"])
            assert guest.reply(asked["lookup"])
            # What is asked from now on is done.
            guest.unlink("x")
            assert not (area.src / "x").exists()


def mark_as_taken(guest: Guest, heads: list[int]) -> None:
    """In the buffer of what is in flight, as *Inflight I/O tracking* lays it out."""
    assert guest.frontend._inflight is not None
    fd, place = guest.frontend._inflight
    region = (16 + 16 * place.queue_size + 63) & -64
    for counter, head in enumerate(heads):
        entry = region + 16 + 16 * head
        os.pwrite(fd, struct.pack("<Q", counter + 1000), place.mmap_offset + entry + 8)
        os.pwrite(fd, b"\1", place.mmap_offset + entry)


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment(area: Area, seed: int) -> None:
    """Under load: what the guest was told was done is there, what failed harmed nobody."""
    chance = random.Random(seed)
    made: set[str] = set()
    unknown: set[str] = set()
    numbers = count()
    with area.serving() as first, area.guest() as guest:
        guest.init()
        process = first
        try:
            for _ in range(3):
                timer = threading.Timer(chance.uniform(0.05, 0.3), process.kill)
                timer.start()
                name, asked = make_directories(guest, process, numbers, made)
                timer.join()
                process = area.start()
                guest.go_on(area.connect(process))
                try:
                    guest.reply(asked)
                    made.add(name)
                except Refused:
                    unknown.add(name)
                guest.mkdir(f"after-{name}")
                made.add(f"after-{name}")
        finally:
            process.kill()
            process.wait()
    there = set(os.listdir(area.src))
    assert made <= there
    assert there - made <= unknown


def make_directories(
    guest: Guest, process: subprocess.Popen[str], numbers: Iterator[int], made: set[str]
) -> tuple[str, tuple[int, Pending]]:
    """As many as it can before the daemon dies; the one that was not answered then."""
    while True:
        name = f"new-{next(numbers)}"
        body = struct.pack("<II", 0o755, 0o022) + name.encode() + b"\0"
        unique, pending = asked = guest.submit(MKDIR, 1, body)
        while (answer := guest.frontend.poll(pending)) is None:
            if process.poll() is not None:
                return name, asked
            ring = guest.frontend.rings[pending.queue]
            if ring.rest():
                ring.wait(0.01)
        assert checked([answer], unique) == (0, answer[16:])
        made.add(name)
