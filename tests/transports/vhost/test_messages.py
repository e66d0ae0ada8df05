"""The front end's messages: what is obeyed, what is refused, and that nothing leaks."""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farwatch.abi import vhost_user
from farwatch.abi.vhost_user import (
    Flag,
    Inflight,
    MemoryRegion,
    Protocol,
    Request,
    VringAddress,
    VringDescriptor,
    VringState,
)
from farwatch.abi.virtio import Feature
from farwatch.transports.vhost.channel import Channel
from farwatch.transports.vhost.errors import PeerGone, ProtocolError
from farwatch.transports.vhost.frontend import Frontend
from farwatch.transports.vhost.peer import FEATURES, PROTOCOL, Peer, Refused
from farwatch.transports.vhost.shared import SharedMemory
from farwatch.transports.vhost.state import Options
from tests.session import kernel as k
from tests.transports.vhost.scene import Server, eventually, open_descriptors, whole
from tests.transports.vhost.test_fuse import echo

PAGE = 4096


@pytest.fixture
def server() -> Iterator[Server]:
    before = open_descriptors()
    made = Server(whole(echo), lambda: None, Options(tag="tag", max_request=1 << 16))
    yield made
    made.close()
    assert open_descriptors() == before, "descriptors were left open"


@pytest.fixture
def peer(server: Server) -> Iterator[Peer]:
    """Connected, nothing said yet."""
    made = Peer(server.connect())
    yield made
    made.channel.close()


@pytest.fixture
def agreed(peer: Peer) -> Peer:
    peer.negotiate()
    return peer


def memory_file(size: int) -> int:
    fd = os.memfd_create("test")
    os.ftruncate(fd, size)
    return fd


@pytest.fixture
def files() -> Iterator[Callable[[int], int]]:
    made: list[int] = []

    def make(size: int) -> int:
        made.append(memory_file(size))
        return made[-1]

    yield make
    for fd in made:
        os.close(fd)


@pytest.fixture
def event() -> Iterator[int]:
    fd = os.eventfd(0)
    yield fd
    os.close(fd)


def is_gone(peer: Peer) -> bool:
    """Whether the device hangs up."""
    poll = select.poll()
    poll.register(peer.channel.fileno(), select.POLLIN)
    while poll.poll(5000):
        try:
            message = peer.channel.receive()
        except PeerGone:
            return True
        if message is not None:
            message.close()
    return False


# What there is ---------------------------------------------------------------


def test_features(peer: Peer) -> None:
    offered = peer.get_number(Request.GET_FEATURES)
    assert offered == 1 << 32 | 1 << 30 | 1 << 29 | 1 << 28
    protocol = peer.get_number(Request.GET_PROTOCOL_FEATURES)
    bits = {bit for bit in range(64) if protocol >> bit & 1}
    assert bits == {0, 3, 5, 9, 12, 13, 15}


def test_notifications_are_offered_when_asked_for() -> None:
    server = Server(whole(echo), lambda: None, Options(notify_buf_size=4096))
    try:
        peer = Peer(server.connect())
        peer.negotiate()
        assert peer.get_number(Request.GET_FEATURES) & 1
        assert peer.get_number(Request.GET_QUEUE_NUM) == 3
        assert peer.config(0, 44) == b"farwatch" + bytes(28) + struct.pack("<II", 1, 4096)
        peer.channel.close()
    finally:
        server.close()


def test_queue_number(agreed: Peer) -> None:
    assert agreed.get_number(Request.GET_QUEUE_NUM) == 2


def test_slots(agreed: Peer) -> None:
    assert agreed.get_number(Request.GET_MAX_MEM_SLOTS) >= 32


@pytest.mark.parametrize(
    ("offset", "size", "expected"),
    [
        (0, 40, b"tag" + bytes(33) + b"\1\0\0\0"),
        (36, 4, b"\1\0\0\0"),
        (1, 2, b"ag"),
        (40, 0, b""),
        (0, 41, b""),
        (40, 1, b""),
        (0, 256, b""),
    ],
)
def test_config(agreed: Peer, offset: int, size: int, expected: bytes) -> None:
    assert agreed.config(offset, size) == expected


def test_config_is_read_only(agreed: Peer) -> None:
    with pytest.raises(Refused):
        agreed.tell(Request.SET_CONFIG, struct.pack("<III", 0, 3, 0) + b"new")
    with pytest.raises(Refused):
        agreed.tell(Request.SET_CONFIG, struct.pack("<III", 0, 3, 0) + b"tag")
    with pytest.raises(Refused):
        agreed.tell(Request.SET_CONFIG, struct.pack("<III", 0, 3, 1) + b"new")
    agreed.tell(Request.SET_CONFIG, struct.pack("<III", 0, 3, 1) + b"tag")


def test_owner(agreed: Peer) -> None:
    agreed.tell(Request.SET_OWNER)
    agreed.tell(Request.RESET_OWNER)


def test_back_end_requests(server: Server) -> None:
    peer = Peer(server.connect())
    peer.negotiate(protocol=PROTOCOL | Protocol.BACKEND_REQ)
    here, there = socket.socketpair()
    peer.tell(Request.SET_BACKEND_REQ_FD, b"", [there.fileno()])
    there.close()
    here.setblocking(False)
    with pytest.raises(BlockingIOError):
        here.recv(1)
    with pytest.raises(Refused):
        peer.tell(Request.SET_BACKEND_REQ_FD)
    peer.channel.close()
    server.join()
    assert here.recv(1) == b"", "closed with the connection"
    here.close()


# What is refused -------------------------------------------------------------

STATE = VringState(0, 1).encode()
WRONG = {
    "unknown": (99, b""),
    "unknown-large": ((1 << 32) - 1, b""),
    "zero": (0, b""),
    "not-offered-log": (Request.SET_LOG_BASE, bytes(16)),
    "not-offered-iotlb": (Request.IOTLB_MSG, bytes(40)),
    "not-offered-postcopy": (Request.POSTCOPY_ADVISE, b""),
    "not-offered-status": (Request.SET_STATUS, bytes(8)),
    "not-offered-in-band": (Request.VRING_KICK, STATE),
    "features-short": (Request.SET_FEATURES, bytes(7)),
    "features-unknown": (Request.SET_FEATURES, struct.pack("<Q", 1 << 34)),
    "features-notification": (Request.SET_FEATURES, struct.pack("<Q", 1)),
    "protocol-unknown": (Request.SET_PROTOCOL_FEATURES, struct.pack("<Q", 1 << 14)),
    "owner-payload": (Request.SET_OWNER, b"x"),
    "no-queue": (Request.SET_VRING_NUM, VringState(2, 64).encode()),
    "no-queue-large": (Request.SET_VRING_ENABLE, VringState((1 << 32) - 1, 1).encode()),
    "size-0": (Request.SET_VRING_NUM, VringState(0, 0).encode()),
    "size-odd": (Request.SET_VRING_NUM, VringState(0, 100).encode()),
    "size-large": (Request.SET_VRING_NUM, VringState(0, 1 << 16).encode()),
    "base-large": (Request.SET_VRING_BASE, VringState(0, 1 << 16).encode()),
    "enable-2": (Request.SET_VRING_ENABLE, VringState(0, 2).encode()),
    "address-log": (Request.SET_VRING_ADDR, VringAddress(0, 1, 0, 0, 0).encode()),
    "address-odd-descriptors": (Request.SET_VRING_ADDR, VringAddress(0, 0, 8, 0, 0).encode()),
    "address-odd-used": (Request.SET_VRING_ADDR, VringAddress(0, 0, 0, 2, 0).encode()),
    "address-odd-available": (Request.SET_VRING_ADDR, VringAddress(0, 0, 0, 0, 1).encode()),
    "address-short": (Request.SET_VRING_ADDR, bytes(39)),
    "kick-without": (Request.SET_VRING_KICK, VringDescriptor(0, has_descriptor=True).encode()),
    "kick-polling": (Request.SET_VRING_KICK, VringDescriptor(0, has_descriptor=False).encode()),
    "call-without": (Request.SET_VRING_CALL, VringDescriptor(1, has_descriptor=True).encode()),
    "call-no-queue": (Request.SET_VRING_CALL, VringDescriptor(9, has_descriptor=False).encode()),
    "err-bits": (Request.SET_VRING_ERR, struct.pack("<Q", 1 << 20)),
    "memory-without": (
        Request.SET_MEM_TABLE,
        vhost_user.encode_regions([MemoryRegion(0, 1, 0, 0)]),
    ),
    "memory-short": (Request.SET_MEM_TABLE, struct.pack("<II", 1, 0)),
    "memory-9": (Request.SET_MEM_TABLE, struct.pack("<II", 9, 0) + bytes(32 * 9)),
    "memory-empty-region": (
        Request.SET_MEM_TABLE,
        vhost_user.encode_regions([MemoryRegion(0, 0, 0, 0)]),
    ),
    "memory-over-the-end": (Request.ADD_MEM_REG, MemoryRegion((1 << 64) - 1, 2, 0, 0).encode()),
    "slot-without": (Request.ADD_MEM_REG, MemoryRegion(0, 4096, 0, 0).encode()),
    "slot-not-there": (Request.REM_MEM_REG, MemoryRegion(0, 4096, 0, 0).encode()),
    "inflight-without": (Request.SET_INFLIGHT_FD, Inflight(4096, 0, 1, 64).encode()),
    "inflight-short": (Request.SET_INFLIGHT_FD, bytes(19)),
}


@pytest.mark.parametrize(("request_", "payload"), WRONG.values(), ids=WRONG)
def test_refused(agreed: Peer, request_: int, payload: bytes) -> None:
    """Where an acknowledgement was asked for, that says so, and the connection goes on."""
    with pytest.raises(Refused):
        agreed.tell(request_, payload)
    assert agreed.get_number(Request.GET_QUEUE_NUM) == 2


@pytest.mark.parametrize(("request_", "payload"), WRONG.values(), ids=WRONG)
def test_let_go(server: Server, agreed: Peer, request_: int, payload: bytes) -> None:
    """Where none was asked for, nothing else could say so."""
    agreed.channel.send(request_, payload)
    assert is_gone(agreed)
    server.join()
    with Frontend(server.connect()) as again:
        again.negotiate()


FRAMES = {
    "other-version": struct.pack("<III", 1, 2, 0),
    "no-version": struct.pack("<III", 1, 8, 0),
    "too-large": struct.pack("<III", 1, 9, 4097),
    "huge": struct.pack("<III", 5, 9, (1 << 32) - 1),
    "reply": struct.pack("<III", 3, 1 | 4, 0),
    "get-payload": struct.pack("<III", 1, 1, 1) + b"x",
    "get-base-short": struct.pack("<III", 11, 1, 4) + bytes(4),
    "get-base-no-queue": struct.pack("<III", 11, 9, 8) + struct.pack("<II", 7, 0),
    "get-config-short": struct.pack("<III", 24, 9, 4) + bytes(4),
    "get-inflight-none": struct.pack("<III", 31, 9, 24) + bytes(24),
    "get-status": struct.pack("<III", 40, 9, 0),
}


@pytest.mark.parametrize("data", FRAMES.values(), ids=FRAMES)
def test_no_answer_could_be_right(server: Server, agreed: Peer, data: bytes) -> None:
    agreed.channel.send_bytes(data)
    assert is_gone(agreed)
    server.join()


@pytest.mark.parametrize("size", range(1, 20))
def test_cut_off(server: Server, peer: Peer, size: int) -> None:
    data = vhost_user.encode(2, vhost_user.encode_u64(0))
    peer.channel.send_bytes(data[:size])
    assert not is_closed_soon(peer)
    peer.channel.close()
    server.join()


def is_closed_soon(peer: Peer) -> bool:
    poll = select.poll()
    poll.register(peer.channel.fileno(), select.POLLIN)
    return bool(poll.poll(2))


def test_byte_by_byte(peer: Peer) -> None:
    for byte in vhost_user.encode(Request.GET_FEATURES):
        peer.channel.send_bytes(bytes([byte]))
    with peer.reply_to(Request.GET_FEATURES) as reply:
        assert len(reply.payload) == 8


def test_many_at_once(peer: Peer) -> None:
    peer.channel.send_bytes(vhost_user.encode(Request.GET_FEATURES) * 50)
    for _ in range(50):
        peer.reply_to(Request.GET_FEATURES).close()


@pytest.mark.parametrize("request_", sorted(vhost_user.Request))
def test_protocol_feature_is_needed(server: Server, request_: Request) -> None:
    """Nothing of an extension works that was not agreed on."""
    extension = {17, 21, 24, 25, 31, 32, 34, 36, 37, 38}
    if request_ not in extension:
        return
    peer = Peer(server.connect())
    peer.negotiate(protocol=int(Protocol.REPLY_ACK))
    peer.channel.send(request_, b"", Flag.NEED_REPLY)
    if request_ in vhost_user.ANSWERED:
        assert is_gone(peer)
    else:
        with peer.reply_to(request_) as reply:
            assert reply.payload == struct.pack("<Q", 1)
    peer.channel.close()
    server.join()


# Descriptors -----------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 8])
@pytest.mark.parametrize("request_", [1, 3, 5, 8, 12, 13, 21, 32, 37, 38, 99])
def test_descriptors_nobody_wants(
    server: Server, agreed: Peer, event: int, request_: int, count: int
) -> None:
    """They are closed, whatever becomes of the message (the fixture looks)."""
    agreed.channel.send(request_, b"", Flag.NEED_REPLY, [event] * count)
    agreed.reply_to(request_).close()


@pytest.mark.parametrize("count", [9, 20, 253])
def test_more_descriptors_than_allowed(
    server: Server, agreed: Peer, event: int, count: int
) -> None:
    agreed.channel.send(Request.SET_MEM_TABLE, b"", 0, [event] * count)
    assert is_gone(agreed)
    server.join()


def test_descriptors_in_every_byte(server: Server, agreed: Peer, event: int) -> None:
    with contextlib.suppress(PeerGone):
        for byte in vhost_user.encode(Request.SET_OWNER):
            agreed.channel.send_bytes(bytes([byte]), [event])
    assert is_gone(agreed)
    server.join()


def test_descriptors_of_a_message_that_never_ends(server: Server, agreed: Peer, event: int) -> None:
    agreed.channel.send_bytes(vhost_user.encode(Request.SET_VRING_KICK, bytes(8))[:-1], [event])
    agreed.channel.close()
    server.join()


@pytest.mark.parametrize("kind", ["pipe", "file", "socket", "directory", "memory"])
@pytest.mark.parametrize("request_", [12, 13, 14])
def test_only_eventfds(agreed: Peer, request_: int, kind: str) -> None:
    """Writing to anything else could block, or harm."""
    payload = VringDescriptor(0, has_descriptor=True).encode()
    fds: list[int] = []
    if kind == "pipe":
        fds += os.pipe()
    elif kind == "socket":
        fds += [each.detach() for each in socket.socketpair()]
    elif kind == "memory":
        fds.append(memory_file(PAGE))
    else:
        fds.append(os.open("/dev/null" if kind == "file" else "/", os.O_RDONLY))
    try:
        with pytest.raises(Refused):
            agreed.tell(request_, payload, [fds[-1]])
    finally:
        for fd in fds:
            os.close(fd)


def test_eventfd_that_blocks(server: Server, event: int) -> None:
    """A call whose counter is full wakes nobody, and stops nobody."""
    with Frontend(server.connect()) as frontend:
        frontend.negotiate(0)
        frontend.start(SharedMemory([1 << 20]))
        payload = VringDescriptor(1, has_descriptor=True).encode()
        frontend.tell(Request.SET_VRING_CALL, payload, [event])
        os.eventfd_write(event, (1 << 64) - 2)
        frontend.submit(k.request(k.READ, 1), 100)
        assert eventually(lambda: frontend.rings[1].used_index == 1)


# Memory ----------------------------------------------------------------------

Files = Callable[[int], int]


def region(guest: int, size: int, user: int | None = None, offset: int = 0) -> MemoryRegion:
    return MemoryRegion(guest, size, guest if user is None else user, offset)


@pytest.mark.parametrize(
    ("regions", "sizes"),
    [
        ([region(0, PAGE)], [PAGE - 1]),
        ([region(0, PAGE, offset=1)], [PAGE]),
        ([region(0, 1 << 40)], [PAGE]),
        ([region(0, (1 << 62), offset=(1 << 62) - 1)], [PAGE]),
        ([region(0, PAGE), region(PAGE - 1, PAGE)], [PAGE, PAGE]),
        ([region(0, PAGE), region(PAGE, PAGE, user=100)], [PAGE, PAGE]),
        ([region(0, PAGE)] * 2, [PAGE, PAGE]),
    ],
)
def test_bad_memory(
    agreed: Peer, files: Files, regions: list[MemoryRegion], sizes: list[int]
) -> None:
    fds = [files(size) for size in sizes]
    with pytest.raises(Refused):
        agreed.tell(Request.SET_MEM_TABLE, vhost_user.encode_regions(regions), fds)


@pytest.mark.parametrize("extra", [-1, 1])
def test_one_descriptor_a_region(agreed: Peer, files: Files, extra: int) -> None:
    regions = [region(place << 20, PAGE) for place in range(3)]
    with pytest.raises(Refused):
        agreed.tell(
            Request.SET_MEM_TABLE, vhost_user.encode_regions(regions), [files(PAGE)] * (3 + extra)
        )


def test_not_memory(agreed: Peer) -> None:
    for path, flags in (("/", os.O_RDONLY), ("/dev/zero", os.O_RDWR), ("/proc/self/exe", 0)):
        fd = os.open(path, flags)
        with pytest.raises(Refused):
            agreed.tell(Request.ADD_MEM_REG, region(0, PAGE).encode(), [fd])
        os.close(fd)


def test_slots_come_and_go(agreed: Peer, files: Files) -> None:
    for place in range(20):
        agreed.tell(Request.ADD_MEM_REG, region(place * PAGE, PAGE).encode(), [files(PAGE)])
    with pytest.raises(Refused):
        agreed.tell(Request.ADD_MEM_REG, region(3 * PAGE, PAGE).encode(), [files(PAGE)])
    # The mmap offset does not count, and neither does a descriptor that comes along.
    agreed.tell(Request.REM_MEM_REG, region(3 * PAGE, PAGE, offset=77).encode(), [files(PAGE)])
    with pytest.raises(Refused):
        agreed.tell(Request.REM_MEM_REG, region(3 * PAGE, PAGE).encode())
    agreed.tell(Request.ADD_MEM_REG, region(3 * PAGE, PAGE).encode(), [files(PAGE)])


def test_as_many_slots_as_it_says(agreed: Peer, files: Files) -> None:
    fd, most = files(PAGE), agreed.get_number(Request.GET_MAX_MEM_SLOTS)
    for place in range(most):
        agreed.tell(Request.ADD_MEM_REG, region(place * PAGE, PAGE).encode(), [fd])
    with pytest.raises(Refused):
        agreed.tell(Request.ADD_MEM_REG, region(most * PAGE, PAGE).encode(), [fd])


def test_memory_grows_while_rings_run(server: Server, files: Files) -> None:
    with Frontend(server.connect()) as frontend:
        frontend.negotiate()
        frontend.start(SharedMemory([1 << 20]))
        assert frontend.ask(k.request(k.READ, 1), 100)
        frontend.tell(Request.ADD_MEM_REG, region(0, PAGE).encode(), [files(PAGE)])
        assert frontend.ask(k.request(k.READ, 1), 100)
        frontend.tell(Request.REM_MEM_REG, region(0, PAGE).encode())
        assert frontend.ask(k.request(k.READ, 1), 100)


def test_memory_under_a_ring_goes(server: Server) -> None:
    """The ring is broken; the device lives."""
    with Frontend(server.connect()) as frontend:
        frontend.negotiate()
        memory = SharedMemory([1 << 20])
        frontend.start(memory)
        frontend.tell(Request.REM_MEM_REG, memory.regions[0][0].encode())
        assert all(ring.is_broken(5) for ring in frontend.rings)
        frontend.share(memory)
        for index in range(2):
            base = frontend.stop_queue(index)
            frontend.start_queue(index, base)
        assert frontend.ask(k.request(k.READ, 1), 100)


@pytest.mark.parametrize("protocol", [0, int(Protocol.REPLY_ACK), PROTOCOL])
@pytest.mark.parametrize("features", [0, FEATURES])
def test_whatever_is_agreed_on(server: Server, protocol: int, features: int) -> None:
    """Without memory slots the table is one message; without REPLY_ACK nothing is said."""
    with Frontend(server.connect()) as frontend:
        frontend.negotiate(features, protocol)
        frontend.start(SharedMemory([1 << 16, 1 << 20]))
        assert frontend.ask(k.request(k.READ, 1), 100)


def test_without_protocol_features_queues_are_enabled(server: Server) -> None:
    with Frontend(server.connect()) as frontend:
        frontend.channel.send(Request.SET_FEATURES, struct.pack("<Q", 1 << 32))
        frontend.start(SharedMemory([1 << 20]))
        assert frontend.ask(k.request(k.READ, 1), 100)


def test_settings_of_a_running_queue(server: Server) -> None:
    with Frontend(server.connect()) as frontend:
        frontend.negotiate()
        frontend.start(SharedMemory([1 << 20]))
        for request_, payload in (
            (Request.SET_VRING_NUM, VringState(0, 32).encode()),
            (Request.SET_VRING_BASE, VringState(0, 32).encode()),
            (Request.SET_FEATURES, struct.pack("<Q", 1 << 32)),
            (Request.SET_VRING_ADDR, VringAddress(0, 0, 0, 0, 0).encode()),
        ):
            with pytest.raises(Refused):
                frontend.tell(request_, payload)
        # These may change at any moment.
        call = VringDescriptor(1, has_descriptor=True).encode()
        for fd in (frontend.rings[1].call_fd, frontend.rings[1].call_fd):
            frontend.tell(Request.SET_VRING_CALL, call, [fd])
        frontend.tell(Request.SET_VRING_KICK, call, [frontend.rings[1].kick_fd])
        assert frontend.ask(k.request(k.READ, 1), 100)
        frontend.tell(Request.SET_VRING_CALL, VringDescriptor(1, has_descriptor=False).encode())
        frontend.submit(k.request(k.READ, 1), 100)
        assert eventually(lambda: frontend.rings[1].used_index == 2)


@pytest.mark.parametrize("missing", ["size", "address", "memory"])
def test_started_too_early(agreed: Peer, files: Files, event: int, missing: str) -> None:
    if missing != "memory":
        agreed.tell(Request.ADD_MEM_REG, region(0, 1 << 16).encode(), [files(1 << 16)])
    if missing != "size":
        agreed.tell(Request.SET_VRING_NUM, VringState(0, 64).encode())
    if missing != "address":
        address = VringAddress(0, 0, 0, 2048, 4096).encode()
        agreed.tell(Request.SET_VRING_ADDR, address)
    with pytest.raises(Refused):
        agreed.tell(
            Request.SET_VRING_KICK, VringDescriptor(0, has_descriptor=True).encode(), [event]
        )


def test_reset(server: Server) -> None:
    with Frontend(server.connect()) as frontend:
        frontend.negotiate()
        frontend.start(SharedMemory([1 << 20]))
        assert frontend.ask(k.request(k.READ, 1), 100)
        frontend.tell(Request.RESET_DEVICE)
        pending = frontend.submit(k.request(k.READ, 1), 100)
        with frontend.get(Request.GET_VRING_BASE, VringState(1, 0).encode()) as reply:
            assert VringState.decode(reply.payload) == (1, 0)
        assert frontend.poll(pending) is None


# The other side goes ---------------------------------------------------------


def test_gone_at_once(server: Server) -> None:
    server.connect().close()
    server.join()


def test_gone_while_requests_run(server: Server) -> None:
    with Frontend(server.connect()) as frontend:
        frontend.negotiate()
        frontend.start(SharedMemory([1 << 20]))
        for number in range(1, 10):
            frontend.submit(k.request(k.READ, 1, unique=number), 100)
    server.join()


def test_does_not_read_its_answers(server: Server) -> None:
    """The device does not wait for it."""
    connection = server.connect()
    connection.setblocking(False)
    data = vhost_user.encode(Request.GET_FEATURES) * 100
    for _ in range(10_000):
        try:
            connection.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            continue
        except (BrokenPipeError, ConnectionResetError):
            break
    server.join()
    connection.close()


def test_stop(server: Server) -> None:
    server.connect().close()
    server.join()
    server.backend.stop()
    peer = Peer(server.connect())
    assert is_gone(peer)
    peer.channel.close()


# Anything --------------------------------------------------------------------

KINDS = st.sampled_from(["event", "memory", "pipe"])
MESSAGE = st.tuples(
    st.one_of(st.integers(0, 45), st.integers(0, (1 << 32) - 1)),
    st.sampled_from([1, 9, 9, 9, 5, 13, 0]),
    st.one_of(
        st.binary(max_size=80),
        st.builds(lambda a, b: VringState(a, b).encode(), st.integers(0, 3), st.integers(0, 300)),
        st.builds(struct.Struct("<Q").pack, st.integers(0, (1 << 64) - 1)),
        st.builds(struct.Struct("<Q").pack, st.integers(0, 3)),
        st.builds(
            lambda g, s, u: MemoryRegion(g, s, u, 0).encode(),
            st.sampled_from([0, 4096, 1 << 20]),
            st.sampled_from([1, 4096, 8192]),
            st.sampled_from([0, 4096, 1 << 20]),
        ),
        st.builds(
            lambda v, d, u, a: VringAddress(v, 0, d, u, a).encode(),
            st.integers(0, 2),
            st.sampled_from([0, 1024, 8000]),
            st.sampled_from([0, 2048, 8188]),
            st.sampled_from([0, 3072, 8190]),
        ),
    ),
    st.lists(KINDS, max_size=9),
)


@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(messages=st.lists(MESSAGE, max_size=12), ack=st.booleans())
def test_any_messages(messages: Sequence[tuple[int, int, bytes, list[str]]], ack: bool) -> None:
    """Whatever is said: no exception, no hang, no descriptor left."""
    before = open_descriptors()
    pipe = os.pipe()
    fds = {"event": os.eventfd(0), "memory": memory_file(2 * PAGE), "pipe": pipe[1]}
    server = Server(whole(echo), lambda: None, Options(max_request=1 << 12))
    connection = server.connect()
    peer = Peer(connection)
    try:
        if ack:
            peer.negotiate()
        for request_, flags, payload, kinds in messages:
            data = struct.pack("<III", request_, flags, len(payload)) + payload
            peer.channel.send_bytes(data, [fds[kind] for kind in kinds])
    except PeerGone:
        pass
    peer.channel.close()
    server.close()
    for fd in (*pipe, fds["event"], fds["memory"]):
        os.close(fd)
    assert open_descriptors() == before


def test_channel_keeps_what_it_takes_apart() -> None:
    """A message's descriptors do not leak into the next one."""
    here, there = socket.socketpair()
    channel = Channel(there)
    fds = array.array("i", os.pipe())
    here.sendmsg(
        [vhost_user.encode(3) + vhost_user.encode(1)[:5]],
        [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)],
    )
    with channel.receive() or pytest.fail("nothing") as message:
        assert message.count == 2
        with pytest.raises(ProtocolError, match="2 descriptors where there should be 1"):
            message.take_all(1)
    assert channel.receive() is None
    here.sendall(vhost_user.encode(1)[5:])
    with channel.receive() or pytest.fail("nothing") as message:
        assert message.count == 0
        assert message.name == "GET_FEATURES"
    here.close()
    with pytest.raises(PeerGone):
        channel.receive()
    channel.close()
    for fd in fds:
        os.close(fd)


def test_features_are_what_virtio_calls_them() -> None:
    assert Feature.VERSION_1 in Feature(FEATURES)
