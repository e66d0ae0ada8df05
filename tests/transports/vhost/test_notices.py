"""Notifications that are taken from where they are made, as the driver gives buffers."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from farwatch.abi.virtio import NOTIFICATION_QUEUE, Feature
from farwatch.session.request import Payload
from farwatch.transports.vhost.errors import ProtocolError
from farwatch.transports.vhost.frontend import Frontend
from farwatch.transports.vhost.peer import FEATURES
from farwatch.transports.vhost.shared import SharedMemory
from farwatch.transports.vhost.state import Options
from tests.session import kernel as k
from tests.transports.vhost.scene import Server, whole

OPTIONS = Options(notify_buf_size=128, max_request=1 << 16)
LOST = b"lost"


class Saying:
    """Says what it was told to; ``rooms`` are those that it was asked with.

    ``before`` is what it has to say before a request of ``told_first`` is answered, ``after``
    what comes up meanwhile.
    """

    def __init__(self) -> None:
        self.waiting: deque[bytes] = deque()
        self.told_first: frozenset[int] = frozenset()
        self.before: list[bytes] = []
        self.after: list[bytes] = []
        self.rooms: list[int] = []

    @property
    def has_notice(self) -> bool:
        return bool(self.waiting)

    @contextmanager
    def answering(self) -> Iterator[None]:
        self.waiting += self.before
        yield
        self.waiting += self.after

    def next_notice(self, room: int) -> Sequence[Payload] | None:
        self.rooms.append(room)
        payload = self.waiting[0]
        if 16 + len(payload) > room:
            payload = LOST
        if 16 + len(payload) > room:
            return None
        self.waiting.popleft()
        return (struct.pack("<IiQ", 16 + len(payload), 3, 0), payload)


class Scene:
    """A front end with a notification queue, and who speaks to it."""

    def __init__(self) -> None:
        self.saying = Saying()
        self.server = Server(whole(echo), lambda: None, OPTIONS, self.saying)
        self.frontend = Frontend(self.server.connect())
        self.frontend.negotiate(int(FEATURES | Feature.FS_NOTIFICATION))
        self.frontend.start(SharedMemory([1 << 20]), queues=3)

    def say(self, *payloads: bytes) -> None:
        """From another thread than the back end's."""
        self.saying.waiting += payloads
        self.server.backend.wake()

    def hear(self, count: int, size: int = 128) -> list[bytes]:
        offered = self.frontend.offer(size, count)
        return [self.frontend.wait(pending)[16:] for pending in offered]

    def close(self) -> None:
        self.frontend.close()
        self.server.close()


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.close()


def echo(data: memoryview) -> Sequence[Payload]:
    return (struct.pack("<IiQ", 16, 0, struct.unpack_from("<8xQ", data)[0]),)


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def test_what_is_said_wakes_the_back_end(scene: Scene) -> None:
    offered = scene.frontend.offer(128, 2)
    scene.say(b"a", b"b")
    assert [scene.frontend.wait(each)[16:] for each in offered] == [b"a", b"b"]


def test_they_are_taken_in_the_order_in_which_they_were_put(scene: Scene) -> None:
    said = numbered(200)
    heard: list[bytes] = []
    scene.frontend.offer(128, 8)
    scene.say(*said)
    while len(heard) < len(said):
        taken = scene.frontend.notifications()
        heard += [data[16:] for data in taken]
        if taken:
            scene.frontend.offer(128, len(taken))
        elif scene.frontend.rings[NOTIFICATION_QUEUE].rest():
            assert scene.frontend.rings[NOTIFICATION_QUEUE].wait(10)
    assert heard == said


def test_nothing_is_taken_before_there_is_a_buffer(scene: Scene) -> None:
    said = numbered(100)
    scene.say(*said)
    assert scene.frontend.ask(k.request(k.READ, 1), 100)
    assert (len(scene.saying.waiting), scene.saying.rooms) == (100, [])
    heard: list[bytes] = []
    for count in (1, 3, 60, 36):
        heard += scene.hear(count)
        assert len(scene.saying.waiting) == 100 - len(heard)
    assert heard == said


def test_a_buffer_that_is_too_small_is_the_speaker_s_affair(scene: Scene) -> None:
    scene.say(b"a", b"b" * 100, b"c")
    assert scene.hear(3, size=30) == [b"a", LOST, b"c"]


def test_a_buffer_for_nothing_at_all_goes_back_empty(scene: Scene) -> None:
    scene.say(b"a")
    (small,) = scene.frontend.offer(8, 1)
    assert scene.frontend.wait(small) == b""
    assert scene.hear(1) == [b"a"]


def test_a_queue_that_is_stopped_and_started_again_loses_nothing(scene: Scene) -> None:
    offered = scene.frontend.offer(128, 3)
    scene.say(b"before")
    assert scene.frontend.wait(offered[0])[16:] == b"before"
    base = scene.frontend.stop_queue(NOTIFICATION_QUEUE)
    scene.say(*numbered(4))
    assert scene.frontend.ask(k.request(k.READ, 1), 100)
    assert len(scene.saying.waiting) == 4
    scene.frontend.start_queue(NOTIFICATION_QUEUE, base)
    heard = [scene.frontend.wait(each)[16:] for each in offered[1:]] + scene.hear(2)
    assert heard == numbered(4)


def test_what_is_sent_goes_before_what_is_taken(scene: Scene) -> None:
    scene.server.backend.send((struct.pack("<IiQ", 20, 9, 0), b"sent"))
    scene.say(b"said")
    assert scene.hear(2) == [b"sent", b"said"]


def test_what_came_before_an_answer_is_there_when_the_answer_is(scene: Scene) -> None:
    scene.saying.told_first = frozenset((k.MKDIR,))
    offered = scene.frontend.offer(128, 3)
    for number in range(50):
        scene.saying.before, scene.saying.after = [b"before%d" % number], [b"after%d" % number]
        assert scene.frontend.ask(k.request(k.MKDIR, 1), 100)
        told = scene.frontend.poll(offered[0])
        assert told is not None
        assert told[16:] == b"before%d" % number
        assert scene.frontend.wait(offered[1])[16:] == b"after%d" % number
        offered = [*offered[2:], *scene.frontend.offer(128, 2)]


def test_other_answers_wait_for_nothing(scene: Scene) -> None:
    scene.saying.told_first = frozenset((k.MKDIR,))
    scene.saying.before = [b"before"]
    offered = scene.frontend.offer(128, 1)
    assert scene.frontend.ask(k.request(k.READ, 1), 100)
    assert scene.frontend.poll(offered[0]) is None


def test_no_answer_waits_for_a_buffer(scene: Scene) -> None:
    scene.saying.told_first = frozenset((k.MKDIR,))
    scene.saying.before = [b"before"]
    assert scene.frontend.ask(k.request(k.MKDIR, 1), 100)
    assert scene.hear(1) == [b"before"]


def test_without_a_queue_for_them_answers_are_no_notifications() -> None:
    """What would be that queue is the first one for requests."""
    server = Server(whole(echo), lambda: None, OPTIONS)
    frontend = Frontend(server.connect())
    try:
        frontend.negotiate(int(FEATURES))
        frontend.start(SharedMemory([1 << 20]), queues=3)
        assert frontend.request_queue == NOTIFICATION_QUEUE
        with pytest.raises(ProtocolError, match="no queue for notifications"):
            frontend.offer(128, 1)
        first = frontend.submit(k.request(k.READ, 1), 100)
        second = frontend.submit(k.request(k.READ, 1), 100)
        # To look for the one takes what has been used, the other's answer too.
        assert frontend.wait(second)
        assert frontend.notifications() == []
        assert frontend.poll(first)
    finally:
        frontend.close()
        server.close()
