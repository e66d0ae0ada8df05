"""abi/virtio.py and abi/vhost_user.py against the kernel's headers and the specification.

A C compiler works out the rings' layouts, and bytes, from ``linux/virtio_ring.h``,
``linux/virtio_fs.h`` and ``linux/vhost_types.h``; CAPTURE is what it said where there was
one (x86_64, the headers of Linux 6.1).  What no kernel header declares stands below with
its origin, typed in by hand.
"""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farwatch.abi import vhost_user, virtio
from farwatch.abi.vhost_user import (
    ConfigAccess,
    Flag,
    Header,
    Inflight,
    Malformed,
    MemoryRegion,
    Protocol,
    Request,
    VringAddress,
    VringDescriptor,
    VringState,
)
from farwatch.abi.virtio import Descriptor, Feature
from tests.abi.golden.header import compiler

PROGRAM = r"""
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <linux/virtio_ring.h>
#include <linux/virtio_fs.h>
#include <linux/vhost_types.h>

static void bytes(const char *name, const void *data, size_t size)
{
    const unsigned char *at = data;
    printf("bytes %s ", name);
    while (size--)
        printf("%02x", *at++);
    printf("\n");
}

#define NUMBER(name) printf("value %s %llu\n", #name, (unsigned long long)(name))

int main(void)
{
    struct vring_desc desc = {0x1122334455667788, 0x99aabbcc,
                              VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 0x1234};
    struct vring_used_elem used = {0x01020304, 0x0a0b0c0d};
    struct virtio_fs_config config = {"farwatch", 7};
    struct vhost_vring_state state = {3, 256};
    struct vhost_vring_addr address = {1, 0, 0x1000, 0x2000, 0x3000, 0x4000};
    struct { __u32 count, padding; struct vhost_memory_region region[1]; } table =
        {1, 0, {{0x100000000, 0x10000, 0x7f0000000000, 0x3000}}};
    struct vring ring;
    int size, event, i;

    bytes("desc", &desc, sizeof desc);
    bytes("used", &used, sizeof used);
    bytes("config", &config, sizeof config);
    bytes("state", &state, sizeof state);
    bytes("address", &address, sizeof address);
    bytes("table", &table, sizeof table);
    NUMBER(VRING_DESC_F_NEXT);
    NUMBER(VRING_DESC_F_WRITE);
    NUMBER(VRING_DESC_F_INDIRECT);
    NUMBER(VRING_USED_F_NO_NOTIFY);
    NUMBER(VRING_AVAIL_F_NO_INTERRUPT);
    NUMBER(VRING_DESC_ALIGN_SIZE);
    NUMBER(VRING_AVAIL_ALIGN_SIZE);
    NUMBER(VRING_USED_ALIGN_SIZE);
    NUMBER(VIRTIO_RING_F_INDIRECT_DESC);
    NUMBER(VIRTIO_RING_F_EVENT_IDX);
    NUMBER(VIRTIO_F_VERSION_1);
    NUMBER(VIRTIO_F_ACCESS_PLATFORM);
    NUMBER(VIRTIO_F_RING_PACKED);
    for (size = 1; size <= 32768; size *= 2) {
        vring_init(&ring, size, NULL, 4);
        printf("ring %d %zu %zu %zu\n", size, (size_t)ring.avail,
               (size_t)((char *)&vring_used_event(&ring) - (char *)ring.avail),
               (size_t)((char *)&vring_avail_event(&ring) - (char *)ring.used));
    }
    for (event = 65530; event < 65545; event++)
        for (i = 0; i < 20; i++)
            printf("event %d %d %d %d\n", event & 0xffff, (65531 + i) & 0xffff,
                   (65531 + i / 2) & 0xffff,
                   vring_need_event(event, 65531 + i, 65531 + i / 2));
    return 0;
}
"""

CAPTURE = """\
bytes desc 8877665544332211ccbbaa9903003412
bytes used 040302010d0c0b0a
bytes config 66617277617463680000000000000000000000000000000000000000000000000000000007000000
bytes state 0300000000010000
bytes address 01000000000000000010000000000000002000000000000000300000000000000040000000000000
bytes table 01000000000000000000000001000000000001000000000000000000007f00000030000000000000
value VRING_DESC_F_NEXT 1
value VRING_DESC_F_WRITE 2
value VRING_DESC_F_INDIRECT 4
value VRING_USED_F_NO_NOTIFY 1
value VRING_AVAIL_F_NO_INTERRUPT 1
value VRING_DESC_ALIGN_SIZE 16
value VRING_AVAIL_ALIGN_SIZE 2
value VRING_USED_ALIGN_SIZE 4
value VIRTIO_RING_F_INDIRECT_DESC 28
value VIRTIO_RING_F_EVENT_IDX 29
value VIRTIO_F_VERSION_1 32
value VIRTIO_F_ACCESS_PLATFORM 33
value VIRTIO_F_RING_PACKED 34
ring 1 16 6 12
ring 2 32 8 20
ring 4 64 12 36
ring 8 128 20 68
ring 16 256 36 132
ring 32 512 68 260
ring 64 1024 132 516
ring 128 2048 260 1028
ring 256 4096 516 2052
ring 512 8192 1028 4100
ring 1024 16384 2052 8196
ring 2048 32768 4100 16388
ring 4096 65536 8196 32772
ring 8192 131072 16388 65540
ring 16384 262144 32772 131076
ring 32768 524288 65540 262148
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the system's headers say; the capture where there is no compiler."""
    cc = compiler()
    if cc is None or not Path("/usr/include/linux/virtio_fs.h").exists():
        return CAPTURE
    directory = tmp_path_factory.mktemp("golden")
    source, binary = directory / "ask.c", directory / "ask"
    source.write_text(PROGRAM)
    subprocess.run([cc, "-Wall", source, "-o", binary], check=True)
    return subprocess.run([binary], check=True, capture_output=True, text=True).stdout


def table(text: str, kind: str) -> list[list[str]]:
    return [line.split()[1:] for line in text.splitlines() if line.split()[0] == kind]


def test_capture_is_what_the_headers_say(said: str) -> None:
    fixed = [line for line in said.splitlines() if not line.startswith("event")]
    assert fixed == CAPTURE.splitlines() or said == CAPTURE


@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        ("desc", virtio.DESCRIPTOR.pack(0x1122334455667788, 0x99AABBCC, 3, 0x1234)),
        ("used", virtio.USED_ELEMENT.pack(0x01020304, 0x0A0B0C0D)),
        ("config", virtio.encode_config("farwatch", 7)),
        ("state", VringState(3, 256).encode()),
        ("address", VringAddress(1, 0, 0x1000, 0x2000, 0x3000, 0x4000).encode()),
        (
            "table",
            vhost_user.encode_regions([MemoryRegion(0x100000000, 0x10000, 0x7F0000000000, 0x3000)]),
        ),
    ],
)
def test_bytes(said: str, name: str, encoded: bytes) -> None:
    assert dict(table(said, "bytes"))[name] == encoded.hex()


def test_numbers(said: str) -> None:
    values = {name: int(number) for name, number in table(said, "value")}
    assert values == {
        "VRING_DESC_F_NEXT": Descriptor.NEXT,
        "VRING_DESC_F_WRITE": Descriptor.WRITE,
        "VRING_DESC_F_INDIRECT": Descriptor.INDIRECT,
        "VRING_USED_F_NO_NOTIFY": virtio.USED_NO_NOTIFY,
        "VRING_AVAIL_F_NO_INTERRUPT": virtio.AVAILABLE_NO_INTERRUPT,
        "VRING_DESC_ALIGN_SIZE": virtio.DESCRIPTOR_ALIGN,
        "VRING_AVAIL_ALIGN_SIZE": virtio.AVAILABLE_ALIGN,
        "VRING_USED_ALIGN_SIZE": virtio.USED_ALIGN,
        "VIRTIO_RING_F_INDIRECT_DESC": Feature.INDIRECT_DESC.bit_length() - 1,
        "VIRTIO_RING_F_EVENT_IDX": Feature.EVENT_IDX.bit_length() - 1,
        "VIRTIO_F_VERSION_1": Feature.VERSION_1.bit_length() - 1,
        "VIRTIO_F_ACCESS_PLATFORM": Feature.ACCESS_PLATFORM.bit_length() - 1,
        "VIRTIO_F_RING_PACKED": Feature.RING_PACKED.bit_length() - 1,
    }


def test_ring_sizes(said: str) -> None:
    found = [list(map(int, row)) for row in table(said, "ring")]
    assert len(found) == 16
    for size, available, used_event, avail_event in found:
        assert virtio.is_queue_size(size)
        assert virtio.descriptors_size(size) == available
        assert virtio.available_size(size, event_idx=False) == used_event
        assert virtio.available_size(size, event_idx=True) == used_event + 2
        assert virtio.used_size(size, event_idx=False) == avail_event
        assert virtio.used_size(size, event_idx=True) == avail_event + 2


def test_need_event(said: str) -> None:
    for row in table(said, "event"):
        event, new, old, wanted = map(int, row)
        assert virtio.needs_event(event, new, old) == bool(wanted)


@pytest.mark.parametrize(
    ("event", "new", "old", "wanted"),
    [
        (0, 1, 0, True),
        (1, 1, 0, False),
        (5, 5, 5, False),
        (65535, 0, 65535, True),
        (65535, 65535, 65534, False),
        (10, 20, 5, True),
        (3, 20, 5, False),
        (20, 20, 5, False),
    ],
)
def test_need_event_by_hand(event: int, new: int, old: int, wanted: bool) -> None:
    assert virtio.needs_event(event, new, old) == wanted


@pytest.mark.parametrize("size", [0, 3, 5, 100, 1 << 16, 65535, 1 << 31])
def test_no_queue_size(size: int) -> None:
    assert not virtio.is_queue_size(size)


def test_config() -> None:
    """virtio 1.2, 5.11.4: tag, num_request_queues, notify_buf_size."""
    assert virtio.encode_config("x" * 36, 2) == b"x" * 36 + b"\2\0\0\0"
    assert virtio.encode_config("t", 1, 4096) == b"t" + bytes(35) + b"\1\0\0\0\0\x10\0\0"
    assert int(Feature.FS_NOTIFICATION) == 1, "feature bit 0 (5.11.3)"


@pytest.mark.parametrize("tag", ["", "x" * 37, "é" * 19, "a\0b"])
def test_bad_tag(tag: str) -> None:
    with pytest.raises(ValueError, match="tag"):
        virtio.encode_config(tag, 1)


# From the specification -----------------------------------------------------------

REQUESTS = [
    "GET_FEATURES",
    "SET_FEATURES",
    "SET_OWNER",
    "RESET_OWNER",
    "SET_MEM_TABLE",
    "SET_LOG_BASE",
    "SET_LOG_FD",
    "SET_VRING_NUM",
    "SET_VRING_ADDR",
    "SET_VRING_BASE",
    "GET_VRING_BASE",
    "SET_VRING_KICK",
    "SET_VRING_CALL",
    "SET_VRING_ERR",
    "GET_PROTOCOL_FEATURES",
    "SET_PROTOCOL_FEATURES",
    "GET_QUEUE_NUM",
    "SET_VRING_ENABLE",
    "SEND_RARP",
    "NET_SET_MTU",
    "SET_BACKEND_REQ_FD",
    "IOTLB_MSG",
    "SET_VRING_ENDIAN",
    "GET_CONFIG",
    "SET_CONFIG",
    "CREATE_CRYPTO_SESSION",
    "CLOSE_CRYPTO_SESSION",
    "POSTCOPY_ADVISE",
    "POSTCOPY_LISTEN",
    "POSTCOPY_END",
    "GET_INFLIGHT_FD",
    "SET_INFLIGHT_FD",
    "GPU_SET_SOCKET",
    "RESET_DEVICE",
    "VRING_KICK",
    "GET_MAX_MEM_SLOTS",
    "ADD_MEM_REG",
    "REM_MEM_REG",
    "SET_STATUS",
    "GET_STATUS",
]
"""*Front-end message types*: the ids count from 1."""
PROTOCOL = [
    "MQ",
    "LOG_SHMFD",
    "RARP",
    "REPLY_ACK",
    "NET_MTU",
    "BACKEND_REQ",
    "CROSS_ENDIAN",
    "CRYPTO_SESSION",
    "PAGEFAULT",
    "CONFIG",
    "BACKEND_SEND_FD",
    "HOST_NOTIFIER",
    "INFLIGHT_SHMFD",
    "RESET_DEVICE",
    "INBAND_NOTIFICATIONS",
    "CONFIGURE_MEM_SLOTS",
    "STATUS",
]
"""*Protocol features*: the bits count from 0."""


def test_request_numbers() -> None:
    assert [each.name for each in Request] == REQUESTS
    assert [int(each) for each in Request] == list(range(1, 41))


def test_protocol_features() -> None:
    assert [each.name for each in Protocol] == PROTOCOL
    assert [int(each) for each in Protocol] == [1 << bit for bit in range(17)]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (vhost_user.encode(1), "010000000100000000000000"),
        (
            vhost_user.encode(2, vhost_user.encode_u64(1 << 32 | 1 << 30)),
            "0200000001000000080000000000004001000000",
        ),
        (
            vhost_user.encode(8, VringState(1, 1024).encode(), Flag.NEED_REPLY),
            "0800000009000000080000000100000000040000",
        ),
        (
            vhost_user.encode(11, VringState(0, 7).encode(), Flag.REPLY),
            "0b00000005000000080000000000000007000000",
        ),
        (
            vhost_user.encode(12, VringDescriptor(2, has_descriptor=True).encode()),
            "0c00000001000000080000000200000000000000",
        ),
        (
            vhost_user.encode(13, VringDescriptor(2, has_descriptor=False).encode()),
            "0d00000001000000080000000201000000000000",
        ),
        (
            vhost_user.encode(24, ConfigAccess(0, 4, 1, b"abcd").encode()),
            "18000000010000001000000000000000040000000100000061626364",
        ),
        (
            vhost_user.encode(31, Inflight(0x2000, 0x1000, 2, 128).encode()),
            "1f0000000100000018000000002000000000000000100000000000000200800000000000",
        ),
        (
            vhost_user.encode(37, MemoryRegion(1, 2, 3, 4).encode()),
            "250000000100000028000000"
            + "00" * 8
            + "0100000000000000020000000000000003000000000000000400000000000000",
        ),
    ],
)
def test_messages(message: bytes, expected: str) -> None:
    """Each typed in by hand from *Message Specification*."""
    assert message.hex() == expected


def test_regions_as_the_largest_message() -> None:
    regions = [MemoryRegion(place << 20, 1 << 20, place << 30, 0) for place in range(8)]
    data = vhost_user.encode_regions(regions)
    assert len(data) == 8 + 8 * 32
    assert vhost_user.decode_regions(data) == regions


U64 = st.integers(0, (1 << 64) - 1)
U32 = st.integers(0, (1 << 32) - 1)
U16 = st.integers(0, (1 << 16) - 1)


@given(st.builds(VringState, U32, U32))
def test_state_round_trip(state: VringState) -> None:
    assert VringState.decode(state.encode()) == state


@given(st.builds(VringAddress, U32, U32, U64, U64, U64, U64))
def test_address_round_trip(address: VringAddress) -> None:
    assert VringAddress.decode(address.encode()) == address


@given(st.builds(VringDescriptor, st.integers(0, 255), st.booleans()))
def test_descriptor_round_trip(which: VringDescriptor) -> None:
    assert VringDescriptor.decode(which.encode()) == which


@given(st.builds(Inflight, U64, U64, U16, U16))
def test_inflight_round_trip(place: Inflight) -> None:
    assert Inflight.decode(place.encode()) == place
    assert Inflight.decode(place.encode()[:20]) == place


@given(U64, U64, U64, U64)
def test_region_is_checked(guest: int, size: int, user: int, offset: int) -> None:
    region = MemoryRegion(guest, size, user, offset)
    good = size and guest + size <= 1 << 64 and user + size <= 1 << 64 and offset + size < 1 << 63
    if good:
        assert MemoryRegion.decode(region.encode()) == region
    else:
        with pytest.raises(Malformed, match="ADD"):
            MemoryRegion.decode(region.encode(), "ADD")


DECODERS = {
    "header": Header.decode,
    "state": VringState.decode,
    "address": VringAddress.decode,
    "descriptor": VringDescriptor.decode,
    "region": MemoryRegion.decode,
    "config": ConfigAccess.decode,
    "inflight": Inflight.decode,
    "u64": vhost_user.decode_u64,
    "regions": vhost_user.decode_regions,
}


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)
@given(data=st.binary(max_size=300))
def test_any_bytes(decode: object, data: bytes) -> None:
    """Decoded, or Malformed with a place and a reason; nothing else."""
    assert callable(decode)
    found = None
    try:
        decode(data)
    except Malformed as error:
        found = error
    if found is not None:
        assert found.where and found.what
        assert str(found) == f"{found.where}: {found.what}"


SIZES = {"state": 8, "address": 40, "descriptor": 8, "region": 40, "u64": 8}


@pytest.mark.parametrize(("name", "size"), SIZES.items())
@pytest.mark.parametrize("off", [-1, 1, 8])
def test_wrong_size(name: str, size: int, off: int) -> None:
    with pytest.raises(Malformed, match=f"{size + off} bytes where there should be {size}"):
        DECODERS[name](bytes(size + off))  # type: ignore[operator]


@pytest.mark.parametrize("version", [0, 2, 3])
def test_other_version(version: int) -> None:
    with pytest.raises(Malformed, match=f"SET_OWNER: version {version}"):
        Header.decode(struct.pack("<III", 3, version, 0))


@pytest.mark.parametrize("size", [4097, 1 << 31, (1 << 32) - 1])
def test_too_large(size: int) -> None:
    with pytest.raises(Malformed, match=f"request 999: a payload of {size} bytes"):
        Header.decode(struct.pack("<III", 999, 1, size))


def test_header_flags() -> None:
    header = Header.decode(struct.pack("<III", 1, 1 | 8, 0))
    assert header.needs_reply
    assert not header.is_reply
    assert Header.decode(struct.pack("<III", 1, 1 | 4, 0)).is_reply
    assert header.name == "GET_FEATURES"


@pytest.mark.parametrize("number", [1 << 9, 1 << 63, 0x1200])
def test_unknown_bits_beside_a_descriptor(number: int) -> None:
    with pytest.raises(Malformed, match="unknown bits"):
        VringDescriptor.decode(struct.pack("<Q", number))


@pytest.mark.parametrize("count", [0, 1, 7, 9, (1 << 32) - 1])
def test_regions_that_are_not_there(count: int) -> None:
    data = struct.pack("<II", count, 0) + struct.pack("<4Q", 0, 1, 0, 0) * 8
    with pytest.raises(Malformed, match="regions"):
        vhost_user.decode_regions(data)


@pytest.mark.parametrize(
    ("offset", "size", "data"),
    [(0, 4, b"abc"), (0, 4, b"abcde"), (253, 4, b"abcd"), ((1 << 32) - 1, 1, b"a")],
)
def test_config_that_is_not_there(offset: int, size: int, data: bytes) -> None:
    with pytest.raises(Malformed, match="bytes"):
        ConfigAccess.decode(struct.pack("<III", offset, size, 0) + data)


def test_no_payload() -> None:
    vhost_user.decode_nothing(b"", "SET_OWNER")
    with pytest.raises(Malformed, match="SET_OWNER: 1 bytes where there should be none"):
        vhost_user.decode_nothing(b"x", "SET_OWNER")


def test_max_regions_is_the_specifications() -> None:
    assert vhost_user.MAX_REGIONS == vhost_user.MAX_DESCRIPTORS == 8
