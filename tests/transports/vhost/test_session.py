"""FUSE through virtqueues: a front end, a back end and a session, in one process."""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from farwatch.abi.virtio import Feature
from farwatch.export.tree import Export
from farwatch.session.session import Session
from farwatch.transports.vhost.errors import PeerGone
from farwatch.transports.vhost.peer import FEATURES
from farwatch.transports.vhost.state import Options
from tests.session import kernel as k
from tests.session.memory import MemoryDisk
from tests.transports.vhost.scene import MAX_WRITE, ROOM, Scene, eventually

PLAIN = int(Feature.VERSION_1)


@pytest.fixture
def disk() -> Iterator[MemoryDisk]:
    with MemoryDisk() as made:
        yield made


@pytest.fixture
def session(disk: MemoryDisk) -> Iterator[Session]:
    made = Session(k.in_session(disk), k.settings(), disk, lambda thread, key: None)
    yield made
    made.close()


@pytest.fixture
def scene(session: Session) -> Iterator[Scene]:
    with Scene(session) as made:
        made.init()
        yield made


def open_in(flags: int) -> bytes:
    return struct.pack("<II", flags, 0)


def io(fh: int, offset: int, size: int) -> bytes:
    return struct.pack("<QQIIQII", fh, offset, size, 0, 0, 0, 0)


def create(scene: Scene, name: bytes) -> tuple[int, int]:
    """A new file's node and handle."""
    body = struct.pack("<IIII", os.O_RDWR | os.O_CREAT, 0o100644, 0, 0) + name + b"\0"
    data = scene.ask(k.CREATE, k.ROOT, body)
    return k.entry_of(data[:128]).node, k.opened_of(data[128:]).fh


def walk(scene: Scene) -> None:
    """What a client does with a file and a directory."""
    with pytest.raises(k.Refused) as refused:
        scene.ask(k.LOOKUP, k.ROOT, b"new\0")
    assert refused.value.errno == errno.ENOENT
    node, fh = create(scene, b"new")
    content = bytes(range(256)) * 300
    written = scene.ask(k.WRITE, node, io(fh, 5, len(content)) + content)
    assert struct.unpack("<II", written) == (len(content), 0)
    assert scene.ask(k.READ, node, io(fh, 0, MAX_WRITE)) == bytes(5) + content
    assert scene.ask(k.READ, node, io(fh, 1 << 20, 100)) == b""
    assert k.entry_of(scene.ask(k.LOOKUP, k.ROOT, b"new\0")).node == node
    directory = k.opened_of(scene.ask(k.OPENDIR, k.ROOT, open_in(0))).fh
    found = k.dirents(scene.ask(k.READDIRPLUS, k.ROOT, io(directory, 0, 4096)), plus=True)
    assert b"new" in {each.name for each in found}
    scene.ask(k.RELEASE, node, struct.pack("<QIIQ", fh, 0, 0, 0))


@pytest.mark.parametrize(
    "features", [PLAIN, PLAIN | Feature.INDIRECT_DESC, PLAIN | Feature.EVENT_IDX, FEATURES]
)
@pytest.mark.parametrize(
    ("sizes", "adjacent"),
    [
        ((4 << 20,), False),
        ((1 << 16, 4 << 20), False),
        ((1 << 14,) * 200, True),
    ],
)
def test_walk(session: Session, features: int, sizes: tuple[int, ...], adjacent: bool) -> None:
    with Scene(session, features=int(features), sizes=sizes, adjacent=adjacent) as scene:
        scene.init()
        walk(scene)


@pytest.mark.root
def test_walk_on_disk(tmp_path: Path) -> None:
    with Export(os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as export:
        session = Session(export, k.settings(), export, lambda thread, key: None)
        with Scene(session) as scene:
            scene.init()
            walk(scene)
        assert (tmp_path / "new").stat().st_size == 5 + 256 * 300


def test_before_init(session: Session) -> None:
    with Scene(session) as scene, pytest.raises(k.Refused) as refused:
        scene.ask(k.GETATTR, k.ROOT, bytes(16))
    assert refused.value.errno == errno.EIO


# The control channel -----------------------------------------------------------------


def ioctl(fh: int, command: int, data: bytes) -> bytes:
    head = struct.pack("<QIIQII", fh, k.IOCTL_DIR, command, 0, len(data), 16383)
    return head + data


def register(scene: Scene) -> int:
    """HELLO; the handle that the agent speaks on."""
    fh = k.opened_of(scene.ask(k.OPENDIR, k.ROOT, open_in(0))).fh
    scene.ask(k.IOCTL, k.ROOT, ioctl(fh, k.HELLO, struct.pack("<II", 1, 0)))
    return fh


WAIT_0 = struct.pack("<QII", 0, 0, 0)
SCAN = 1


def next_batch(scene: Scene, fh: int) -> k.Batch:
    return k.batch_of(scene.ask(k.IOCTL, k.ROOT, ioctl(fh, k.WAIT, WAIT_0))[16:])


def test_wait_is_parked(scene: Scene) -> None:
    """And answered by another thread, while other requests go on."""
    fh = register(scene)
    next_batch(scene, fh)
    parked = scene.submit(k.IOCTL, k.ROOT, ioctl(fh, k.WAIT, WAIT_0))
    scene.ask(k.GETATTR, k.ROOT, bytes(16))
    assert scene.frontend.poll(parked[1]) is None

    def later() -> None:
        with scene.session.view.lock:
            scene.session.delivery.ask(2)
        answer = scene.session.answer()
        assert answer is not None
        scene.backend.send(answer)

    thread = threading.Thread(target=later)
    thread.start()
    batch = k.batch_of(scene.reply(parked)[16:])
    thread.join()
    assert (batch.flags, batch.steps) == (2, [])


def test_wait_over_stop_and_cont(scene: Scene) -> None:
    """WAIT is answered before the queue stops: what it waits for is not lost afterwards."""
    fh = register(scene)
    next_batch(scene, fh)
    unique, pending = scene.submit(k.IOCTL, k.ROOT, ioctl(fh, k.WAIT, WAIT_0))
    # It is parked once what was asked behind it is answered.
    scene.ask(k.GETATTR, k.ROOT, bytes(16))
    base = scene.frontend.stop_queue(1)
    answer = scene.frontend.poll(pending)
    assert answer is not None
    assert k.checked([answer], unique) == (errno.EINTR, b"")
    assert scene.session.answer() is None, "the session knows"
    with scene.session.view.lock:
        scene.session.delivery.ask(2)
    scene.frontend.start_queue(1, base)
    assert next_batch(scene, fh).flags & 2


def test_wait_when_the_front_end_goes(scene: Scene) -> None:
    """Nothing stays parked for nobody; who comes again asks again."""
    fh = register(scene)
    next_batch(scene, fh)
    parked = scene.submit(k.IOCTL, k.ROOT, ioctl(fh, k.WAIT, WAIT_0))
    scene.ask(k.GETATTR, k.ROOT, bytes(16))
    scene.frontend.channel.close()
    scene.server.join()
    with scene.session.view.lock:
        scene.session.delivery.ask(2)
        assert not scene.session.delivery.has_answer
    scene.frontend.reconnect(scene.server.connect())
    assert k.batch_of(scene.reply(parked)[16:]).flags & 2


def test_forgets_by_the_hiprio_queue(scene: Scene) -> None:
    node, _ = create(scene, b"file")
    data = k.request(k.FORGET, node, struct.pack("<Q", 1), unique=scene.next_unique())
    assert scene.frontend.ask(data, 0, queue=0) == b""


def test_largest_write_and_read(scene: Scene) -> None:
    node, fh = create(scene, b"large")
    content = os.urandom(MAX_WRITE)
    for offset in (0, MAX_WRITE):
        written = scene.ask(k.WRITE, node, io(fh, offset, len(content)) + content)
        assert struct.unpack("<II", written) == (MAX_WRITE, 0)
    assert scene.ask(k.READ, node, io(fh, 7, MAX_WRITE)) == content[7:] + content[:7]


def test_reply_larger_than_the_room(scene: Scene) -> None:
    with pytest.raises(k.Refused) as refused:
        scene.ask(k.GETATTR, k.ROOT, bytes(16), 16 + 103)
    assert refused.value.errno == errno.EIO
    assert len(scene.ask(k.GETATTR, k.ROOT, bytes(16), 16 + 104)) == 104


@pytest.mark.parametrize(
    "destroys",
    [
        True,
        False,
    ],
)
def test_guest_reboots(scene: Scene, destroys: bool) -> None:
    """Stop, start, INIT; a guest that was reset has sent no DESTROY."""
    create(scene, b"before")
    if destroys:
        scene.ask(k.DESTROY, 0)
    bases = [scene.frontend.stop_queue(index) for index in range(2)]
    for index, base in enumerate(bases):
        scene.frontend.start_queue(index, base)
    scene.init()
    walk(scene)


def test_several_queues_and_notifications(session: Session) -> None:
    options = Options(request_queues=3, notify_buf_size=4096, max_request=ROOM)
    with Scene(session, options=options, features=FEATURES | Feature.FS_NOTIFICATION) as scene:
        scene.init()
        walk(scene)
        for queue in (2, 3, 4):
            data = k.request(k.GETATTR, k.ROOT, bytes(16), unique=scene.next_unique())
            assert len(scene.frontend.ask(data, 200, queue=queue)) == 16 + 104


def test_front_end_is_gone(scene: Scene) -> None:
    scene.server.backend.stop()
    scene.server.join()
    assert eventually(lambda: not scene.server.is_serving)
    with pytest.raises(PeerGone):
        scene.frontend.get_number(1)
