"""``--flock`` and ``--posix-lock``: a guest's locks and the host's are one."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import F_RDLCK, F_UNLCK, F_WRLCK

import pytest

from farwatch.export import locks
from farwatch.export.locks import LAST
from farwatch.transports.vhost.frontend import Pending
from tests.mounting.mounted import wait_until
from tests.session.kernel import GETLK, SETLK, SETLKW, Opened, Refused
from tests.virtiofsd.daemon import Area
from tests.virtiofsd.guest import Guest

pytestmark = pytest.mark.root

POSIX_LOCKS, FLOCK_LOCKS = 1 << 1, 1 << 10
FLOCK = 1
BOTH = ("--posix-lock", "--flock")


def body(opened: Opened, kind: int, flags: int = 0, start: int = 0, end: int = LAST) -> bytes:
    return struct.pack("<4Q4I", opened.fh, 7, start, end, kind, 55, flags, 0)


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ((), 0),
        (("--flock",), FLOCK_LOCKS),
        (("--posix-lock",), POSIX_LOCKS),
        (("-o", "posix_lock,flock"), POSIX_LOCKS | FLOCK_LOCKS),
        (("-o", "posix_lock,no_posix_lock,flock"), FLOCK_LOCKS),
    ],
)
def test_offered_when_it_is_asked_for(area: Area, options: tuple[str, ...], flags: int) -> None:
    with area.serving(*options), area.guest() as guest:
        assert guest.init()[3] & (POSIX_LOCKS | FLOCK_LOCKS) == flags


class Scene:
    """A file that the guest has open as ``opened``, and the host as ``fd``."""

    def __init__(self, guest: Guest, fd: int) -> None:
        self.guest = guest
        self.fd = fd
        self.node = guest.lookup("f").node
        self.opened = guest.open(self.node, os.O_RDWR)

    def set(self, kind: int, flags: int = 0, **of: int) -> bool:
        try:
            self.guest.ask(SETLK, self.node, body(self.opened, kind, flags, **of))
        except Refused as refused:
            if refused.errno != errno.EAGAIN:
                raise
            return False
        return True

    def wait(self, kind: int, flags: int = 0) -> tuple[int, Pending]:
        return self.guest.submit(SETLKW, self.node, body(self.opened, kind, flags))


@contextmanager
def locking(area: Area) -> Iterator[Scene]:
    (area.src / "f").write_text("0123456789")
    fd = os.open(area.src / "f", os.O_RDWR)
    try:
        with area.serving(*BOTH), area.guest() as guest:
            guest.init()
            yield Scene(guest, fd)
    finally:
        os.close(fd)


def test_the_host_s_and_the_guest_s(area: Area) -> None:
    with locking(area) as scene:
        assert scene.set(F_WRLCK, start=2, end=4)
        assert scene.set(F_RDLCK, FLOCK)
        assert not locks.set_lock(scene.fd, F_RDLCK, 4, 9)
        assert locks.set_lock(scene.fd, F_RDLCK, 5, 9)
        assert not locks.set_flock(scene.fd, F_WRLCK)
        assert locks.set_flock(scene.fd, F_RDLCK)
        assert not scene.set(F_WRLCK)
        answer = scene.guest.ask(GETLK, scene.node, body(scene.opened, F_WRLCK))
        # Which process it is on the host means nothing in the guest.
        assert struct.unpack("<QQII", answer) == (5, 9, F_RDLCK, 0)
        scene.guest.release(scene.node, scene.opened.fh)
        assert locks.set_lock(scene.fd, F_WRLCK, 0, LAST)
        assert locks.set_flock(scene.fd, F_WRLCK)


@pytest.mark.parametrize("flags", [0, FLOCK])
def test_waiting_holds_nobody_up(area: Area, flags: int) -> None:
    with locking(area) as scene:
        take = locks.set_flock if flags else lambda fd, kind: locks.set_lock(fd, kind, 0, LAST)
        assert take(scene.fd, F_WRLCK)
        asked = scene.wait(F_WRLCK, flags)
        for _ in range(20):
            scene.guest.getattr(scene.node)
        assert scene.guest.frontend.poll(asked[1]) is None
        assert take(scene.fd, F_UNLCK)
        assert scene.guest.reply(asked) == b""
        assert not take(scene.fd, F_RDLCK)


def test_two_guests(area: Area) -> None:
    (area.src / "f").touch()
    other = area.home / "other.sock"
    with area.serving(*BOTH), area.guest() as one, area.serving(*BOTH, at=other):
        with Guest(str(other)) as two:
            one.init()
            two.init()
            first, second = (Scene(guest, -1) for guest in (one, two))
            assert first.set(F_WRLCK)
            assert first.set(F_WRLCK, FLOCK)
            assert not second.set(F_RDLCK)
            asked = second.wait(F_WRLCK, FLOCK)
            second.guest.getattr(second.node)
            assert two.frontend.poll(asked[1]) is None
            one.close()
            assert two.reply(asked) == b""
        with suppress(FileNotFoundError):
            other.unlink()


def test_a_guest_that_is_stopped_while_it_waits(area: Area) -> None:
    """Its requests are answered, as all are: with an errno that programs know."""
    with locking(area) as scene:
        assert locks.set_flock(scene.fd, F_WRLCK)
        asked = scene.wait(F_WRLCK, FLOCK)
        scene.guest.getattr(scene.node)
        queue = scene.guest.frontend.request_queue
        base = scene.guest.frontend.stop_queue(queue)
        with pytest.raises(Refused) as refused:
            scene.guest.reply(asked)
        assert refused.value.errno == errno.ENOLCK
        assert locks.set_flock(scene.fd, F_UNLCK)
        scene.guest.frontend.start_queue(queue, base)
        scene.guest.getattr(scene.node)
        assert locks.set_flock(scene.fd, F_WRLCK)


def test_a_guest_that_is_gone_has_no_locks(area: Area) -> None:
    with locking(area) as scene:
        assert scene.set(F_WRLCK)
        assert scene.set(F_WRLCK, FLOCK)
        scene.guest.close()
        wait_until(lambda: locks.set_lock(scene.fd, F_WRLCK, 0, LAST), "the end of its lock")
        wait_until(lambda: locks.set_flock(scene.fd, F_WRLCK), "the end of the other")
