"""What a client's kernel says, and asks, so that the export does what it would do itself."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from farwatch.events import Key
from farwatch.export.tree import Caller
from farwatch.session.session import Session
from tests.session import kernel as k
from tests.session.kernel import Kernel, Refused, checked, in_session, request, settings
from tests.session.memory import BIRTH_NS, MemoryDisk

# Bits of linux/fuse.h 7.41, by hand.
DONT_MASK, POSIX_ACL, SETXATTR_EXT, CREATE_SUPP_GROUP = 1 << 6, 1 << 20, 1 << 29, 1 << 2
EXTENSIONS_AT = 36
GROUPS = 32
ACCESS = b"system.posix_acl_access"


class NotingDisk(MemoryDisk):
    """A disk that notes for whom directories are made, and how attributes are set."""

    def __init__(self) -> None:
        super().__init__()
        self.callers: list[Caller] = []
        self.kills: list[bool] = []
        self.has_acls = True

    def mkdir(
        self, directory: Key, name: bytes, mode: int, caller: Caller
    ) -> tuple[Key, os.stat_result]:
        self.callers.append(caller)
        return super().mkdir(directory, name, mode, caller)

    def setxattr(self, *arguments: object, kill_sgid: bool = False, **named: object) -> None:
        self.kills.append(kill_sgid)
        super().setxattr(*arguments, **named)  # type: ignore[arg-type]

    def getxattr(self, node: Key, name: bytes) -> bytes:
        if not self.has_acls and name == ACCESS:
            raise OSError(errno.EOPNOTSUPP, "")
        return super().getxattr(node, name)


@pytest.fixture
def noting() -> NotingDisk:
    return NotingDisk()


def client(disk: MemoryDisk, *, acls: bool = False, flags: int = 0, flags2: int = 0) -> Kernel:
    chosen = settings()._replace(posix_acl=acls)
    kernel = Kernel(disk, Session(in_session(disk), chosen, disk, lambda thread, key: None))
    kernel.init(45, k.FLAGS_6_18 & ~flags, k.FLAGS2_6_18 & ~flags2)
    return kernel


def groups(*ids: int) -> bytes:
    """``fuse_ext_header`` and ``fuse_supp_groups``."""
    body = struct.pack(f"<I{len(ids)}I", len(ids), *ids)
    size = 8 + len(body) + 7 & ~7
    return struct.pack("<II", size, GROUPS) + body.ljust(size - 8, b"\0")


def extended(kernel: Kernel, body: bytes, extension: bytes, units: int | None = None) -> int:
    """MKDIR with something behind it; the errno that it is answered with."""
    data = bytearray(request(k.MKDIR, 1, body + extension, unique=2, uid=5, gid=6, pid=7))
    struct.pack_into("<H", data, EXTENSIONS_AT, len(extension) // 8 if units is None else units)
    reply = kernel.session.receive(memoryview(data))
    assert reply is not None
    return checked(reply, 2)[0]


MKDIR = struct.pack("<II", 0o777, 0o027) + b"d\0"


def test_the_umask_is_the_callers(noting: NotingDisk) -> None:
    client(noting, acls=True).mkdir("d", uid=5, gid=6)
    assert noting.callers == [Caller(5, 6, 100, (), 0o022)]


def test_a_kernel_that_masks_itself(noting: NotingDisk) -> None:
    client(noting, acls=True, flags=DONT_MASK).mkdir("d", uid=5, gid=6)
    client(noting).mkdir("e", uid=5, gid=6)
    assert noting.callers == [Caller(5, 6, 100)] * 2


def test_groups_of_the_caller(noting: NotingDisk) -> None:
    kernel = client(noting, acls=True)
    assert extended(kernel, MKDIR, groups(77)) == 0
    assert noting.callers == [Caller(5, 6, 7, (77,), 0o027)]


def test_groups_that_were_not_agreed(noting: NotingDisk) -> None:
    assert extended(client(noting, flags2=CREATE_SUPP_GROUP), MKDIR, groups(77)) == errno.EINVAL
    assert noting.callers == []


@pytest.mark.parametrize(
    ("extension", "units"),
    [
        (groups(77), 1),
        (groups(77), 100),
        (groups(77), 0xFFFF),
        (struct.pack("<IIII", 16, GROUPS + 1, 1, 77), None),
        (struct.pack("<IIII", 24, GROUPS, 1, 77), None),
        (struct.pack("<IIII", 16, GROUPS, 9, 77), None),
        (struct.pack("<IIII", 16, GROUPS, 0xFFFFFFFF, 77), None),
        (struct.pack("<II", 8, GROUPS), None),
    ],
)
def test_what_is_no_extension(noting: NotingDisk, extension: bytes, units: int | None) -> None:
    assert extended(client(noting), MKDIR, extension, units) == errno.EINVAL
    assert noting.callers == []


@pytest.mark.parametrize("acls", [False, True])
def test_access_control_lists_are_asked_for_where_there_are_any(
    noting: NotingDisk, acls: bool
) -> None:
    kernel = client(noting, acls=acls)
    assert kernel.session.agreed is not None
    assert bool(kernel.session.agreed.flags & POSIX_ACL) == acls
    assert bool(kernel.session.agreed.flags & SETXATTR_EXT) == acls


@pytest.mark.parametrize("flags", [0, 1])
def test_a_list_takes_the_set_gid_bit_away(noting: NotingDisk, flags: int) -> None:
    kernel = client(noting, acls=True)
    node = kernel.mknod("f").node
    body = struct.pack("<IIII", 4, 0, flags, 0) + ACCESS + b"\0" + b"list"
    assert kernel.ask(k.SETXATTR, node, body) == b""
    assert noting.kills == [bool(flags)]
    assert noting.at("f").xattrs == {ACCESS: b"list"}


@pytest.mark.parametrize(("acls", "said"), [(True, "ENODATA"), (False, "EOPNOTSUPP|ENOTSUP")])
def test_no_list_is_no_error(noting: NotingDisk, acls: bool, said: str) -> None:
    noting.has_acls = False
    kernel = client(noting, acls=acls)
    node = kernel.mknod("f").node
    with pytest.raises(Refused, match=said):
        kernel.ask(k.GETXATTR, node, struct.pack("<II", 0, 0) + ACCESS + b"\0")


def test_only_root_hears_of_trusted_attributes(noting: NotingDisk) -> None:
    kernel = client(noting)
    node = kernel.mknod("f").node
    noting.at("f").xattrs.update({b"trusted.x": b"", b"user.x": b""})
    body = struct.pack("<II", 100, 0)
    assert kernel.ask(k.LISTXATTR, node, body) == b"trusted.x\0user.x\0"
    assert kernel.ask(k.LISTXATTR, node, body, uid=5) == b"user.x\0"


def test_time_of_birth(noting: NotingDisk) -> None:
    kernel = client(noting)
    entry = kernel.mknod("f", 0o100640)
    answer = kernel.ask(k.STATX, entry.node, struct.pack("<IIQII", 0, 0, 0, 0, 0xFFF))
    assert len(answer) == 288
    mask, blksize, _, nlink, uid, gid, mode, ino, size, *_ = struct.unpack_from(
        "<IIQIIIHxxQQQQ", answer, 32
    )
    attributes = entry.attributes
    assert (blksize, nlink, uid, gid, mode, ino, size) == (
        attributes.blksize, attributes.nlink, attributes.uid, attributes.gid, 0o100640,
        attributes.ino, attributes.size,
    )  # fmt: skip
    assert mask == 0xFFF
    seconds, nanoseconds = struct.unpack_from("<qI", answer, 32 + 80)
    assert seconds * 1_000_000_000 + nanoseconds == BIRTH_NS + noting.at("f").ino
    times = [struct.unpack_from("<qI", answer, 32 + offset) for offset in (64, 96, 112)]
    assert times == [
        (attributes.atime, attributes.atimensec),
        (attributes.ctime, attributes.ctimensec),
        (attributes.mtime, attributes.mtimensec),
    ]


def test_what_is_written_at_the_end_and_what_is_not(noting: NotingDisk) -> None:
    """The program may have changed its mind since (F_SETFL), and a mapping has its place."""
    kernel = client(noting)
    node = kernel.mknod("f").node
    fh = kernel.open(node, os.O_RDWR | os.O_APPEND).fh
    for flags, write_flags, data in (
        (os.O_APPEND, 0, b"0123"),
        (os.O_APPEND, 0, b"45"),
        (0, 0, b"ab"),
        (os.O_APPEND, 1, b"AB"),
        (os.O_APPEND, 0, b"67"),
    ):
        body = struct.pack("<QQIIQII", fh, 1, len(data), write_flags, 0, flags, 0) + data
        kernel.ask(k.WRITE, node, body)
    assert noting.at("f").content() == b"0AB34567"
    kernel.release(node, fh)
