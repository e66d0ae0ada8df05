"""Locks of a client: by whom, on what, and when they end.  On memfds, in this process."""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Iterator
from fcntl import F_RDLCK, F_UNLCK, F_WRLCK

import pytest

from farwatch.events import Change, Kind
from farwatch.export import locks
from farwatch.export.locks import LAST
from farwatch.session.session import Session
from tests.session import kernel as k
from tests.session.kernel import Agent, Kernel, Refused, checked, in_session
from tests.session.memory import MemoryDisk

FLOCK = 1
NOFLUSH = 1 << 5
OPEN_CLOSE = 9
RDONLY, WRONLY, RDWR = os.O_RDONLY, os.O_WRONLY, os.O_RDWR
POSIX_LOCKS, FLOCK_LOCKS = 1 << 1, 1 << 10


class Locking:
    """A file in the export, and requests about its locks."""

    def __init__(self, disk: MemoryDisk, kernel: Kernel) -> None:
        self.disk = disk
        self.kernel = kernel
        disk.do_file("f", b"content")
        self.node = kernel.lookup("f").node
        self.memory = disk.root.children[b"f"].memory

    def open(self, flags: int = RDWR) -> int:
        return self.kernel.open(self.node, flags).fh

    def ask(
        self, opcode: int, fh: int, owner: int, kind: int, start: int = 0, end: int = LAST,
        flags: int = 0, pid: int = 55,
    ) -> bytes | None:  # fmt: skip
        body = struct.pack("<4Q4I", fh, owner, start, end, kind, pid, flags, 0)
        return self.kernel.try_ask(opcode, self.node, body)

    def set(self, fh: int, owner: int, kind: int, start: int = 0, end: int = LAST,
            *, flags: int = 0, pid: int = 55) -> bool:  # fmt: skip
        """SETLK; whether it was done."""
        try:
            assert self.ask(k.SETLK, fh, owner, kind, start, end, flags, pid) == b""
        except Refused as refused:
            if refused.errno != errno.EAGAIN:
                raise
            return False
        return True

    def wait(self, fh: int, owner: int, kind: int, start: int = 0, end: int = LAST,
             *, flags: int = 0) -> int | None:  # fmt: skip
        """SETLKW; the request's number if it is parked."""
        answer = self.ask(k.SETLKW, fh, owner, kind, start, end, flags)
        return self.kernel.last_unique if answer is None else None

    def test(
        self, fh: int, owner: int, kind: int, start: int = 0, end: int = LAST
    ) -> tuple[int, ...]:
        """GETLK: first and last byte, kind and process."""
        answer = self.ask(k.GETLK, fh, owner, kind, start, end)
        assert answer is not None
        return struct.unpack("<QQII", answer)

    def flush(self, fh: int, owner: int) -> None:
        assert self.kernel.ask(k.FLUSH, self.node, struct.pack("<QIIQ", fh, 0, 0, owner)) == b""

    def release(self, fh: int) -> None:
        self.kernel.release(self.node, fh)

    def late(self) -> tuple[int, int] | None:
        """Number and errno of the next late answer."""
        reply = self.kernel.session.answer()
        if reply is None:
            return None
        number, payload = checked(reply)
        assert payload == b""
        return struct.unpack_from("<Q", reply[0], 8)[0], number

    def interrupt(self, unique: int) -> None:
        assert self.kernel.try_ask(k.INTERRUPT, 0, struct.pack("<Q", unique)) is None


@pytest.fixture
def locking(disk: MemoryDisk, kernel: Kernel) -> Locking:
    return Locking(disk, kernel)


@pytest.fixture
def host(locking: Locking) -> Iterator[int]:
    """The same file as somebody else has it open."""
    fd = locks.another(locking.memory, RDWR)
    yield fd
    os.close(fd)


def test_offered(disk: MemoryDisk) -> None:
    assert Kernel(disk).init()[3] & (POSIX_LOCKS | FLOCK_LOCKS) == POSIX_LOCKS | FLOCK_LOCKS


def test_owners_of_one_open_file(locking: Locking, host: int) -> None:
    fh = locking.open()
    assert locking.set(fh, 1, F_WRLCK, 0, 4)
    assert locking.set(fh, 1, F_RDLCK, 2, 9)
    assert not locking.set(fh, 2, F_WRLCK, 4, 4)
    assert locking.set(fh, 2, F_RDLCK, 4, 4)
    assert not locks.set_lock(host, F_RDLCK, 1, 1)
    assert locks.set_lock(host, F_RDLCK, 2, 20)
    assert not locking.set(fh, 1, F_WRLCK, 20, 20)
    locking.flush(fh, 1)
    assert locks.set_lock(host, F_WRLCK, 0, 1)
    assert not locks.set_lock(host, F_WRLCK, 4, 4)
    locking.flush(fh, 2)
    assert locks.set_lock(host, F_WRLCK, 4, 4)


def test_no_descriptor_is_left(locking: Locking) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(3):
        one, two = locking.open(), locking.open(RDONLY)
        for owner in range(4):
            assert locking.set(one, owner, F_WRLCK, owner, owner)
        assert locking.set(two, 9, F_RDLCK, 10, 10)
        assert locking.set(one, 9, F_WRLCK, 11, 11)
        assert not locking.set(one, 10, F_WRLCK, 0, 20)
        assert locking.set(one, 11, F_WRLCK, flags=FLOCK)
        for owner in range(2):
            locking.flush(one, owner)
        assert locking.set(one, 3, F_UNLCK)
        locking.release(one)
        locking.release(two)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_who_holds_it(locking: Locking, host: int) -> None:
    one, two = locking.open(), locking.open()
    assert locking.set(one, 1, F_WRLCK, 10, 19, pid=77)
    assert locks.set_lock(host, F_RDLCK, 30, LAST)
    assert locking.test(two, 2, F_RDLCK) == (10, 19, F_WRLCK, 77)
    # Somebody else's open file, which is no process; and this client is on another host.
    assert locking.test(two, 2, F_WRLCK, 20) == (30, LAST, F_RDLCK, 0)
    assert locking.test(two, 2, F_RDLCK, 20, 40) == (20, 40, F_UNLCK, 0)
    assert locking.test(one, 1, F_WRLCK, 0, 29) == (0, 29, F_UNLCK, 0)
    assert locking.test(one, 3, F_WRLCK, 15, 15) == (10, 19, F_WRLCK, 77)


def test_flush_ends_all_of_an_owner_on_a_file(locking: Locking, host: int) -> None:
    one, two = locking.open(), locking.open()
    assert locking.set(one, 1, F_WRLCK, 0, 0)
    assert locking.set(two, 1, F_WRLCK, 5, 5)
    locking.flush(two, 2)
    assert not locks.set_lock(host, F_WRLCK, 0, 0)
    locking.flush(two, 1)
    assert locks.set_lock(host, F_WRLCK, 0, LAST)


def test_release_ends_what_is_left(locking: Locking, host: int) -> None:
    """Of an open file that owns locks itself there is no FLUSH that names it."""
    one, two = locking.open(), locking.open()
    assert locking.set(one, 1, F_WRLCK, 0, 0)
    assert locking.set(two, 2, F_WRLCK, 1, 1)
    assert locking.set(one, 3, F_WRLCK, flags=FLOCK)
    locking.release(one)
    assert locks.set_lock(host, F_WRLCK, 0, 0)
    assert not locks.set_lock(host, F_WRLCK, 1, 1)
    assert locks.set_flock(host, F_WRLCK)


def test_closes_are_told_where_they_matter(locking: Locking) -> None:
    def is_told(flags: int) -> bool:
        opened = locking.kernel.open(locking.node, flags)
        opened_files.append(opened.fh)
        return not opened.flags & NOFLUSH

    opened_files: list[int] = []
    assert [is_told(flags) for flags in (RDONLY, WRONLY, RDWR)] == [False, True, True]
    read, _, both = opened_files
    assert locking.set(both, 1, F_WRLCK, 0, 0)
    assert is_told(RDONLY)
    locking.flush(both, 1)
    assert not is_told(RDONLY)
    assert locking.set(read, 1, F_RDLCK, 0, 0)
    assert is_told(RDONLY)
    locking.release(read)
    assert is_told(RDONLY)
    assert locking.set(both, 2, F_WRLCK, 0, 0)


def test_closes_that_are_not_told_count_at_the_last(locking: Locking, host: int) -> None:
    """Whoever has locked through a file whose closes are not told has closed it by then."""
    read = locking.open(RDONLY)
    both = locking.open(RDWR)
    assert locking.set(read, 1, F_RDLCK, 0, 9)
    assert locking.set(both, 1, F_WRLCK, 20, 29)
    assert locking.set(both, 2, F_WRLCK, 40, 49)
    locking.release(read)
    assert locks.set_lock(host, F_WRLCK, 0, 39)
    assert not locks.set_lock(host, F_WRLCK, 40, 40)


def test_the_number_of_an_owner_is_given_again(locking: Locking, host: int) -> None:
    """Its process has ended, another has its number, and only then is the file released."""
    read = locking.open(RDONLY)
    assert locking.set(read, 1, F_RDLCK, 0, 0)
    locking.flush(read, 1)
    both = locking.open()
    assert locking.set(both, 1, F_WRLCK, 0, 0)
    locking.release(read)
    assert not locks.set_lock(host, F_WRLCK, 0, 0)


def test_a_client_without_locks_is_not_asked_to_flush(disk: MemoryDisk) -> None:
    kernel = Kernel(disk)
    kernel.init(flags=k.FLAGS_6_18 & ~POSIX_LOCKS)
    disk.do_file("f", b"content")
    assert kernel.open(kernel.lookup("f").node, RDWR).flags & NOFLUSH
    kernel.session.close()


def test_waiting_for_a_client(locking: Locking) -> None:
    one, two = locking.open(), locking.open()
    assert locking.set(one, 1, F_WRLCK, 0, 9)
    unique = locking.wait(two, 2, F_RDLCK, 5, 5)
    assert unique is not None
    assert locking.kernel.session.due is None
    assert locking.late() is None
    assert locking.set(one, 1, F_UNLCK, 0, 4)
    assert locking.late() is None
    assert locking.set(one, 1, F_RDLCK, 5, 9)
    assert locking.late() == (unique, 0)
    assert locking.late() is None
    assert not locking.set(one, 1, F_WRLCK, 5, 5)


def test_waiting_for_somebody_else(locking: Locking, host: int) -> None:
    fh = locking.open()
    for flags, take in ((0, locks_all), (FLOCK, locks.set_flock)):
        assert take(host, F_WRLCK)
        unique = locking.wait(fh, 2, F_WRLCK, flags=flags)
        due = locking.kernel.session.due
        assert due is not None
        assert due - time.monotonic() < 0.1
        assert locking.late() is None
        assert take(host, F_UNLCK)
        answer = None
        while answer is None:
            answer = locking.late()
        assert answer == (unique, 0)
        assert locking.kernel.session.due is None
        assert not take(host, F_RDLCK)


def locks_all(fd: int, kind: int) -> bool:
    return locks.set_lock(fd, kind, 0, LAST)


def test_interrupted(locking: Locking, host: int) -> None:
    one, two = locking.open(), locking.open()
    assert locking.set(one, 1, F_WRLCK)
    unique = locking.wait(two, 2, F_WRLCK)
    assert unique is not None
    locking.interrupt(unique + 1000)
    assert locking.late() is None
    locking.interrupt(unique)
    assert locking.late() == (unique, errno.EINTR)
    assert locking.set(one, 1, F_UNLCK)
    assert locking.late() is None
    assert locks.set_lock(host, F_WRLCK, 0, LAST)


def test_a_client_that_has_no_signals_is_told_of_no_interruption(disk: MemoryDisk) -> None:
    """Where nobody interrupts a request, its end is no signal: EINTR would reach programs."""
    wanted = k.settings()._replace(longest_wait=1.0)
    session = Session(in_session(disk), wanted, disk, lambda thread, key: None)
    kernel = Kernel(disk, session)
    kernel.init()
    locking = Locking(disk, kernel)
    one, two = locking.open(), locking.open()
    assert locking.set(one, 1, F_WRLCK, flags=FLOCK)
    unique = locking.wait(two, 2, F_WRLCK, flags=FLOCK)
    assert unique is not None
    locking.interrupt(unique)
    assert locking.late() == (unique, errno.ENOLCK)
    session.close()


def test_waiting_in_a_circle(locking: Locking) -> None:
    files = [locking.open() for _ in range(4)]
    for owner, fh in enumerate(files):
        assert locking.set(fh, owner, F_WRLCK, owner, owner)
    parked = [locking.wait(files[owner], owner, F_WRLCK, owner + 1, owner + 1) for owner in (0, 1)]
    assert None not in parked
    # Whoever waits for somebody who waits, but not for him, may wait.
    last = locking.wait(files[3], 3, F_WRLCK, 0, 0)
    assert last is not None
    with pytest.raises(Refused) as refused:
        locking.wait(files[2], 2, F_WRLCK, 3, 3)
    assert refused.value.errno == errno.EDEADLK
    # Without waiting it is only refused.
    assert not locking.set(files[2], 2, F_WRLCK, 3, 3)
    locking.flush(files[2], 2)
    assert locking.late() == (parked[1], 0)


def test_a_circle_that_closes_while_waiting(locking: Locking) -> None:
    """Two wait for a third; when that lets go, they have each other's."""
    files = [locking.open() for _ in range(3)]
    assert locking.set(files[0], 0, F_WRLCK, 0, 1)
    assert locking.set(files[1], 1, F_RDLCK, 2, 2)
    assert locking.set(files[2], 2, F_RDLCK, 2, 2)
    one = locking.wait(files[1], 1, F_WRLCK, 0, 2)
    with pytest.raises(Refused) as refused:
        locking.wait(files[2], 2, F_WRLCK, 0, 2)
    assert refused.value.errno == errno.EDEADLK
    locking.flush(files[2], 2)
    assert locking.late() is None
    locking.flush(files[0], 0)
    assert locking.late() == (one, 0)


def test_flock_in_one_client(locking: Locking) -> None:
    one, two, three = (locking.open() for _ in range(3))
    assert locking.set(one, 1, F_RDLCK, flags=FLOCK)
    assert locking.set(two, 2, F_RDLCK, flags=FLOCK)
    unique = locking.wait(three, 3, F_WRLCK, flags=FLOCK)
    # Another kind: the lock that there was is lost, whether there is a new one or not.
    assert not locking.set(one, 1, F_WRLCK, flags=FLOCK)
    assert locking.late() is None
    locking.release(two)
    assert locking.late() == (unique, 0)
    assert not locking.set(one, 1, F_RDLCK, flags=FLOCK)


def test_a_file_that_is_gone_while_somebody_waits(locking: Locking) -> None:
    """No kernel does that; whoever does hears of it."""
    one, two = locking.open(), locking.open()
    assert locking.set(one, 1, F_WRLCK)
    unique = locking.wait(two, 2, F_WRLCK)
    locking.release(two)
    locking.release(one)
    assert locking.late() == (unique, errno.EBADF)


@pytest.mark.parametrize("end", [k.INIT, k.DESTROY])
def test_the_end_of_a_connection(locking: Locking, host: int, end: int) -> None:
    one, two = locking.open(), locking.open(RDONLY)
    assert locking.set(one, 1, F_WRLCK, 0, 9)
    assert locking.set(two, 2, F_RDLCK, 20, 29)
    assert locking.set(one, 3, F_WRLCK, flags=FLOCK)
    assert locking.wait(two, 2, F_RDLCK, 0, 0) is not None
    assert locking.wait(two, 2, F_RDLCK, flags=FLOCK) is not None
    if end == k.INIT:
        locking.kernel.init()
    else:
        locking.kernel.ask(k.DESTROY)
    assert locks.set_lock(host, F_WRLCK, 0, LAST)
    assert locks.set_flock(host, F_WRLCK)
    assert locking.late() is None
    assert locking.kernel.session.due is None


@pytest.mark.parametrize(
    ("start", "end", "kind"),
    [(1, 0, F_RDLCK), (0, LAST + 1, F_RDLCK), (1 << 63, 1 << 63, F_WRLCK), (0, 0, 3), (0, 0, 99)],
)
def test_what_no_lock_is(locking: Locking, start: int, end: int, kind: int) -> None:
    fh = locking.open()
    for opcode in (k.GETLK, k.SETLK, k.SETLKW):
        with pytest.raises(Refused) as refused:
            locking.ask(opcode, fh, 1, kind, start, end)
        assert refused.value.errno == errno.EINVAL


def test_what_cannot_be_locked(locking: Locking, agent: Agent) -> None:
    read = locking.open(RDONLY)
    with pytest.raises(Refused) as refused:
        locking.set(read, 1, F_WRLCK)
    assert refused.value.errno in (errno.EBADF, errno.ENOLCK)
    for opcode in (k.GETLK, k.SETLK, k.SETLKW):
        with pytest.raises(Refused) as refused:
            locking.ask(opcode, 4242, 1, F_RDLCK)
        assert refused.value.errno == errno.EBADF
    # The open of a replay has no file behind it.
    place, inode = locking.disk.place("f"), locking.disk.at("f")
    locking.kernel.deliver(Change(Kind.CLOSE_WRITE, place, inode.key))
    batch = agent.wait()
    assert batch is not None
    uid = batch.mark(OPEN_CLOSE)
    fh = locking.kernel.open(locking.node, os.O_WRONLY, uid=uid, pid=agent.pid).fh
    with pytest.raises(Refused) as refused:
        locking.set(fh, 1, F_RDLCK)
    assert refused.value.errno == errno.EBADF
    locking.release(fh)


def test_more_ranges_than_may_be(locking: Locking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farwatch.session.owners._MOST_RANGES", 10)
    one, two = locking.open(), locking.open()
    for byte in range(10):
        assert locking.set(one, 1, F_WRLCK, 2 * byte, 2 * byte)
    with pytest.raises(Refused) as refused:
        locking.set(two, 2, F_WRLCK, 100, 100)
    assert refused.value.errno == errno.ENOLCK
    assert locking.set(one, 1, F_UNLCK, 0, 0)
    assert locking.set(two, 2, F_WRLCK, 100, 100)
