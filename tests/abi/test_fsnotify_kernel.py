"""What the numbers of abi/fsnotify*.py mean to a kernel that has none of it.

The captured INIT of Linux 6.18 (golden/requests-6.18.txt), and /dev/fuse of this machine.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from farwatch.abi import fsnotify, fsnotify_posted, fuse
from farwatch.abi.fuse import Init, Notify, Opcode
from farwatch.linux.mounts import umount
from farwatch.session.reply import Reply
from farwatch.session.session import Session
from farwatch.session.settings import Caching
from farwatch.transports.devfuse import DevFuse
from tests.abi.golden.fsnotify import CAPTURE, parse
from tests.session.kernel import in_session, settings
from tests.session.memory import MemoryDisk

RECORDING = Path(__file__).parent / "golden" / "requests-6.18.txt"
MESSAGES = parse(CAPTURE.read_text()).messages
CURRENT = [name for name in MESSAGES if name in ("far.modify", "far.renamed", "far.ended")]
POSTED = [name for name in MESSAGES if name.startswith(("v1.c", "v1.s", "v2.c", "v3.c", "v3.s"))]


class Offer(NamedTuple):
    """What an INIT says."""

    minor: int
    flags: int
    size: int


def offer(request: bytes) -> Offer:
    assert fuse.IN_HEADER.unpack_from(request)[1] == Opcode.INIT
    body = request[fuse.IN_HEADER.size :]
    _, minor, _, low, high = fuse.INIT_IN.unpack_from(body)
    return Offer(minor, low | high << 32, len(body))


def recorded() -> Offer:
    lines = RECORDING.read_text().splitlines()
    name, data = next(line for line in lines if not line.startswith("#")).split()
    assert name == "INIT"
    return offer(bytes.fromhex(data))


class Mounted(NamedTuple):
    """A file system in memory, mounted, with names cached for an hour."""

    path: Path
    device: DevFuse
    requests: list[bytes]
    """All that the kernel has sent, INIT first."""

    @property
    def offer(self) -> Offer:
        return offer(self.requests[0])

    def looked_up(self) -> int:
        """How many LOOKUPs reading the file's attributes takes now."""
        del self.requests[1:]
        assert (self.path / "file").stat().st_size == len(b"content")
        opcodes = [fuse.IN_HEADER.unpack_from(request)[1] for request in self.requests[1:]]
        return opcodes.count(Opcode.LOOKUP)

    def write(self, message: bytes) -> int:
        """The errno that writing to /dev/fuse gives, or 0."""
        try:
            assert os.write(self.device.fileno(), message) == len(message)
        except OSError as error:
            return error.errno or -1
        return 0


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    path = tmp_path_factory.mktemp("mounted")
    requests: list[bytes] = []
    with MemoryDisk() as disk, DevFuse(1 << 17) as device:
        disk.do_file("file", b"content")
        cached = settings()._replace(caching=Caching(seconds=3600))
        session = Session(in_session(disk), cached, disk, lambda thread, key: None)

        def receive(data: memoryview) -> Reply | None:
            requests.append(bytes(data))
            return session.receive(data)

        thread = threading.Thread(target=device.serve, args=(receive, lambda: None))
        device.mount(b"fsnotify", os.fsencode(path), 0)
        thread.start()
        try:
            assert (path / "file").read_bytes() == b"content"
            yield Mounted(path, device, requests)
        finally:
            umount(os.fsencode(path), 0)
            thread.join()
            session.close()


def test_what_the_posted_init_flags_mean_in_6_18() -> None:
    init = recorded()
    assert init.size == fuse.INIT_IN.size
    assert init.minor >= 45
    # Both are offered, and neither is the RFC's: to take them for it would be a guess.
    assert Init.INIT_EXT == fsnotify_posted.POSTED_INIT
    assert init.flags & fsnotify_posted.POSTED_INIT
    assert init.flags & fsnotify_posted.PARENTED_INIT
    assert not init.flags & fsnotify.HAVE_FSNOTIFY


@pytest.mark.root
def test_this_kernel_offers_no_fsnotify(mounted: Mounted) -> None:
    init = mounted.offer
    assert not init.flags & fsnotify.HAVE_FSNOTIFY
    # Its bit 30, if set, stands in an INIT that is not the 16 bytes of 2021.
    assert not init.flags & fsnotify_posted.POSTED_INIT or init.size == fuse.INIT_IN.size


@pytest.mark.root
@pytest.mark.parametrize("name", CURRENT)
def test_this_kernel_refuses_what_it_does_not_know(mounted: Mounted, name: str) -> None:
    mounted.looked_up()
    assert mounted.write(MESSAGES[name]) == errno.EINVAL
    assert mounted.looked_up() == 0


@pytest.mark.root
@pytest.mark.parametrize("name", POSTED)
def test_what_was_posted_is_something_else_by_now(mounted: Mounted, name: str) -> None:
    # 8 is INC_EPOCH since 7.44, and its kernels do not look at what else is in it: an
    # event sent by guess has every name forgotten, and nobody is told of an error.
    assert fsnotify_posted.POSTED_NOTIFY == Notify.INC_EPOCH
    mounted.looked_up()
    assert mounted.looked_up() == 0
    known = mounted.offer.minor >= 44
    assert mounted.write(MESSAGES[name]) == (0 if known else errno.EINVAL)
    assert mounted.looked_up() == (1 if known else 0)


@pytest.mark.root
@pytest.mark.parametrize("code", [fsnotify.NOTIFY_EVENT, fsnotify.NOTIFY_ENDED])
def test_a_wrong_length_is_refused_before_the_code_is(mounted: Mounted, code: int) -> None:
    assert mounted.write(fuse.OUT_HEADER.pack(17, code, 0)) == errno.EINVAL
    assert mounted.write(fuse.OUT_HEADER.pack(16, code, 0)[:8]) == errno.EINVAL
    assert (mounted.path / "file").read_bytes() == b"content"
