"""Split virtqueues and the virtio-fs device, as declarations.

The sources are virtio 1.2 (2.7 split virtqueues, 5.11 file system device),
``linux/virtio_ring.h`` and ``linux/virtio_fs.h``.  Everything is little endian.

A queue has three areas, which lie anywhere in the driver's memory:

    descriptors  16 bytes each; a chain of them is one request
    available    flags, index, a ring of chain heads, used_event   (the driver writes)
    used         flags, index, a ring of elements, avail_event     (the device writes)

Both indices count on and wrap at 65,536; an entry's place is the index modulo the
queue's size, which is a power of two.
"""

from __future__ import annotations

from enum import IntFlag
from struct import Struct

DESCRIPTOR = Struct("<QIHH")
"""``struct vring_desc``: addr, len, flags, next."""
RING_HEAD = Struct("<HH")
"""What ``struct vring_avail`` and ``struct vring_used`` begin with: flags, idx."""
HEAD = Struct("<H")
"""An entry of the available ring; also ``used_event`` and ``avail_event``."""
USED_ELEMENT = Struct("<II")
"""``struct vring_used_elem``: id, len."""

DESCRIPTOR_ALIGN = 16
AVAILABLE_ALIGN = 2
USED_ALIGN = 4
LARGEST_QUEUE = 1 << 15
INDEX_MASK = 0xFFFF

USED_NO_NOTIFY = 1
"""``VRING_USED_F_NO_NOTIFY``: the device does without kicks."""
AVAILABLE_NO_INTERRUPT = 1
"""``VRING_AVAIL_F_NO_INTERRUPT``: the driver does without calls."""


class Descriptor(IntFlag):
    """``VRING_DESC_F_*``."""

    NEXT = 1
    WRITE = 2
    INDIRECT = 4


class Feature(IntFlag):
    """Feature bits: ``VIRTIO_FS_F_*`` below 24, ``VIRTIO_RING_F_*`` and ``VIRTIO_F_*`` above."""

    FS_NOTIFICATION = 1 << 0
    INDIRECT_DESC = 1 << 28
    EVENT_IDX = 1 << 29
    VERSION_1 = 1 << 32
    ACCESS_PLATFORM = 1 << 33
    RING_PACKED = 1 << 34


FS_CONFIG = Struct("<36sI")
"""``struct virtio_fs_config``: tag, num_request_queues."""
FS_NOTIFY_BUF_SIZE = Struct("<I")
"""``notify_buf_size`` follows with FS_NOTIFICATION (virtio 1.2, 5.11.4)."""
TAG_SIZE = 36

HIPRIO_QUEUE = 0
NOTIFICATION_QUEUE = 1
"""With FS_NOTIFICATION; without it the request queues begin here."""


def is_queue_size(number: int) -> bool:
    """Whether a split virtqueue may have so many entries."""
    return 0 < number <= LARGEST_QUEUE and not number & (number - 1)


def descriptors_size(queue_size: int) -> int:
    """Bytes of the descriptor table."""
    return DESCRIPTOR.size * queue_size


def available_size(queue_size: int, *, event_idx: bool) -> int:
    """Bytes of the available ring."""
    return RING_HEAD.size + HEAD.size * (queue_size + event_idx)


def used_size(queue_size: int, *, event_idx: bool) -> int:
    """Bytes of the used ring."""
    return RING_HEAD.size + USED_ELEMENT.size * queue_size + HEAD.size * event_idx


def needs_event(event: int, new: int, old: int) -> bool:
    """Whether the other side wants to hear that an index went from ``old`` to ``new``.

    It asked to be told when entry ``event`` is there (``vring_need_event``).
    """
    return (new - event - 1) & INDEX_MASK < (new - old) & INDEX_MASK


def encode_tag(tag: str) -> bytes:
    """A tag as it stands in the config space.  Raises ValueError if it cannot."""
    data = tag.encode()
    if not data or len(data) > TAG_SIZE or b"\0" in data:
        raise ValueError(f"a tag has 1 to {TAG_SIZE} bytes and no NUL: {tag!r}")
    return data


def encode_config(tag: str, request_queues: int, notify_buf_size: int | None = None) -> bytes:
    """The device's config space.  Raises ValueError for a tag that does not fit."""
    config = FS_CONFIG.pack(encode_tag(tag), request_queues)
    if notify_buf_size is not None:
        config += FS_NOTIFY_BUF_SIZE.pack(notify_buf_size)
    return config
