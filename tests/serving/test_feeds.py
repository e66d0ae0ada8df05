"""One source for many: who is told what, whose it was, and who is woken."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from farwatch.events import Key, Mask, Place, Record
from farwatch.serving import feeds
from farwatch.serving.feeds import Feed, SharedSource, client_of, thread_of

HERE, THERE, FILE = b"directory here", b"directory there", b"file"
HOST = 1
CREATE, OPEN, ISDIR = int(Mask.CREATE), int(Mask.OPEN), int(Mask.ISDIR)
ATTRIB, DELETE_SELF = int(Mask.ATTRIB), int(Mask.DELETE_SELF)


class Queue:
    """A source that a test fills."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.wanted = 0
        self.reads = 0
        self.wake = os.eventfd(0, os.EFD_NONBLOCK)

    def read(self, limit: int = 0) -> list[Record]:
        self.reads += 1
        found, self.records = self.records, []
        return found

    def queued(self) -> int:
        return len(self.records)

    def fileno(self) -> int:
        return self.wake

    def want(self, mask: int) -> None:
        self.wanted = mask


def record(
    mask: int = CREATE, thread: int = HOST, directory: Key | None = HERE, node: Key | None = FILE
) -> Record:
    return Record(mask, thread, None if directory is None else Place(directory, b"name"), node)


def is_woken(feed: Feed) -> bool:
    return bool(select.select([feed.fileno()], [], [], 0)[0])


def knows(feed: Feed, *keys: Key) -> Feed:
    feed.known = dict.fromkeys(keys).keys
    return feed


@contextmanager
def joined(shared: SharedSource, *known: Key) -> Iterator[Feed]:
    feed = knows(shared.join(), *known)
    try:
        yield feed
    finally:
        shared.leave(feed)


def in_thread(work: Callable[[], None]) -> int:
    """Runs it in a thread that has ended; the id that it had."""
    ids: list[int] = []

    def run() -> None:
        ids.append(threading.get_native_id())
        work()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return ids[0]


@pytest.fixture
def queue() -> Iterator[Queue]:
    made = Queue()
    yield made
    os.close(made.wake)


@pytest.fixture
def shared(queue: Queue) -> SharedSource:
    return SharedSource(queue)


def test_everybody_is_told_everything_with_the_clients_number(
    queue: Queue, shared: SharedSource
) -> None:
    with joined(shared, HERE) as first:
        second: list[Feed] = []
        me = threading.get_native_id()

        def be_second() -> None:
            with joined(shared, HERE) as feed:
                second.append(feed)
                queue.records = [record(thread=me), record(thread=threading.get_native_id())]
                queue.records.append(record(thread=HOST))
                assert [client_of(each.thread) for each in feed.read()] == [1, 2, 0]

        in_thread(be_second)
        assert [client_of(each.thread) for each in first.read()] == [1, 2, 0]
        assert (first.client, second[0].client) == (1, 2)
    assert client_of(thread_of(7)) == 7
    assert client_of(0) == 0


def test_a_thread_ends_when_everything_of_it_was_read(queue: Queue, shared: SharedSource) -> None:
    with joined(shared, HERE) as listener:

        def work() -> None:
            with joined(shared):
                queue.records = [record(thread=threading.get_native_id())]

        thread = in_thread(work)
        # Whoever has this id now is somebody else.
        queue.records = [record(thread=thread)]
        assert [client_of(each.thread) for each in listener.read()] == [2, 0]


def test_who_joins_is_told_nothing_from_before(queue: Queue, shared: SharedSource) -> None:
    with joined(shared, HERE):
        queue.records = [record()]
        shared.pull()
        in_thread(lambda: _has_nothing(shared))


def _has_nothing(shared: SharedSource) -> None:
    with joined(shared, HERE) as feed:
        assert feed.read() == []


@pytest.mark.parametrize(
    ("told", "wakes"),
    [
        (record(directory=HERE, node=None), True),
        (record(directory=THERE, node=FILE), False),
        (record(directory=None, node=HERE), True),
        (record(directory=None, node=FILE), False),
        (Record(int(Mask.RENAME), HOST, Place(THERE, b"a"), FILE, Place(HERE, b"b")), True),
        (Record(ATTRIB | ISDIR, HOST, Place(THERE, b"."), THERE), True),
        (Record(DELETE_SELF | ISDIR, HOST, Place(THERE, b"."), THERE), False),
        (Record(OPEN | ISDIR, HOST, Place(THERE, b"."), THERE), False),
        (Record(int(Mask.Q_OVERFLOW), 0, None, None), True),
    ],
)
def test_only_what_may_concern_a_client_wakes_it(
    queue: Queue, shared: SharedSource, told: Record, wakes: bool
) -> None:
    with joined(shared, HERE) as feed:
        queue.records = [told]
        shared.pull()
        assert is_woken(feed) is wakes
        assert feed.queued() == wakes
        feed.calm()
        assert feed.read() == ([told] if wakes else [])


def test_a_link_count_is_kept_for_the_name_that_may_follow(
    queue: Queue, shared: SharedSource
) -> None:
    count, name = record(ATTRIB, directory=None), record(directory=HERE)
    with joined(shared, HERE) as feed:
        for each in (count, name):
            queue.records = [each]
            shared.pull()
        assert feed.read() == [count, name]


def test_a_wake_is_not_lost_between_calm_and_reading(queue: Queue, shared: SharedSource) -> None:
    with joined(shared, HERE) as feed:
        for _ in range(3):
            queue.records = [record()]
            shared.pull()
            feed.calm()
            queue.records = [record()]
            shared.pull()
            assert len(feed.read()) == 2
            assert not is_woken(feed)
        queue.records = [record()]
        shared.pull()
        assert is_woken(feed)


def test_reading_reads_what_the_source_has_by_now(queue: Queue, shared: SharedSource) -> None:
    with joined(shared, HERE) as feed:
        queue.records = [record()]
        assert feed.queued() == 1
        assert feed.read() == [record()]
        reads = queue.reads
        assert feed.read() == []
        assert queue.reads == reads, "an empty queue is not read"


def test_reading_kinds_are_asked_for_while_somebody_wants_them(
    queue: Queue, shared: SharedSource
) -> None:
    close = int(Mask.CLOSE_NOWRITE)
    with joined(shared, HERE) as first:

        def be_second() -> None:
            with joined(shared, HERE) as second:
                first.want(OPEN)
                second.want(close)
                assert queue.wanted == OPEN | close
                queue.records = [record(OPEN), record(close | int(Mask.MODIFY)), record(CREATE)]
                assert [each.mask for each in second.read()] == [
                    close,
                    close | int(Mask.MODIFY),
                    CREATE,
                ][1:]
                second.want(0)
                assert queue.wanted == OPEN

        in_thread(be_second)
        assert [each.mask for each in first.read()] == [OPEN, int(Mask.MODIFY), CREATE]
        first.want(0)
        assert queue.wanted == 0


def test_what_a_gone_client_wanted_is_wanted_no_more(queue: Queue, shared: SharedSource) -> None:
    with joined(shared, HERE) as first:

        def work() -> None:
            with joined(shared, HERE) as second:
                second.want(OPEN)

        in_thread(work)
        assert queue.wanted == 0
        first.want(0)


def test_who_does_not_read_is_told_so(
    queue: Queue, shared: SharedSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "MOST_WAITING", 10)
    with joined(shared, HERE) as feed:
        for _ in range(100):
            queue.records = [record()] * 3
            shared.pull()
        assert is_woken(feed)
        read = feed.read()
        assert read[0].mask == Mask.Q_OVERFLOW
        assert len(read) < 11
        queue.records = [record()]
        assert feed.read() == [record()]


def test_after_the_end_the_source_is_left_alone(queue: Queue, shared: SharedSource) -> None:
    with joined(shared, HERE) as feed:
        shared.end()
        queue.records = [record()]
        reads = queue.reads
        assert feed.read() == []
        assert feed.queued() == 0
        feed.want(OPEN)
    assert (queue.reads, queue.wanted) == (reads, 0)


def test_it_runs_until_it_is_told_to_stop(queue: Queue, shared: SharedSource) -> None:
    stop = os.eventfd(0)
    failures: list[BaseException] = []
    thread = threading.Thread(target=shared.run, args=(stop, failures.append))
    with joined(shared, HERE) as feed:
        thread.start()
        queue.records = [record()]
        os.eventfd_write(queue.wake, 1)
        assert select.select([feed.fileno()], [], [], 10)[0]
        os.eventfd_write(stop, 1)
        thread.join(10)
        assert not thread.is_alive()
    os.close(stop)
    assert failures == []
