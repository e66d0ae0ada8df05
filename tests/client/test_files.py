"""Files' content and attributes, and that nothing stays held; local mode, on a disk in memory."""

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from farwatch.abi.fuse import Opcode
from farwatch.client.errors import Misuse
from farwatch.client.protocol import Caller
from tests.client.inprocess import InProcess, heard
from tests.client.two import Client, put
from tests.session.memory import MemoryDisk

RW, CREAT = os.O_RDWR, os.O_CREAT


@pytest.fixture
def there() -> Iterator[InProcess]:
    with MemoryDisk() as disk, InProcess(disk) as made:
        yield made
        assert made.known == 1, "every node is forgotten"
        assert len(made.kernel.inodes) == 1
        assert disk.open_directories == 0


@pytest.fixture
def calls(there: InProcess) -> Client:
    return Client(there)


@pytest.mark.parametrize("size", [0, 1, (1 << 17) - 1, 1 << 17, (1 << 17) + 1, 1_000_000])
def test_sizes(there: InProcess, calls: Client, size: int) -> None:
    """Larger than one READ and WRITE (128 KiB here); each call is one event."""
    content = random.Random(size).randbytes(size)
    calls.mkdir("d")
    group = there.watch("/d")
    put(calls, "d/f", content)
    file = calls.open("d/f", os.O_RDONLY)
    assert file.read(-1) == content
    assert file.read(-1) == b""
    assert file.pread(1000, size // 2) == content[size // 2 :][:1000]
    file.close()
    kinds = [line.partition(":")[2] for line in heard(group)]
    write = ["MODIFY(f)"] if size else []
    read = ["ACCESS(f)"] if size else []
    assert kinds == [
        "CREATE(f)",
        "OPEN(f)",
        *write,
        "CLOSE_WRITE(f)",
        "OPEN(f)",
        *read,
        "CLOSE_NOWRITE(f)",
    ]
    there.run(there.kernel.close_group(group))


def test_positions(calls: Client) -> None:
    put(calls, "f", b"0123456789")
    file = calls.open("f", RW)
    assert file.read(4) == b"0123"
    assert file.write(b"xx") == 2
    assert file.read(2) == b"67"
    assert file.pwrite(b"y", 0) == 1
    assert file.read(-1) == b"89"
    file.truncate(3)
    assert (file.pread(10, 0), file.size()) == (b"y12", 3)
    file.close()


def test_append(calls: Client) -> None:
    put(calls, "f", b"one")
    file, other = (calls.open("f", os.O_WRONLY | os.O_APPEND) for _ in range(2))
    file.write(b"two")
    other.write(b"three")
    file.write(b"four")
    file.close()
    other.close()
    file = calls.open("f", os.O_RDONLY)
    assert file.read(-1) == b"onetwothreefour"
    file.close()


def test_only_for_what_it_was_opened(calls: Client) -> None:
    put(calls, "f")
    reader, writer = calls.open("f", os.O_RDONLY), calls.open("f", os.O_WRONLY)
    for call, number in (
        (lambda: reader.write(b"x"), errno.EBADF),
        (lambda: writer.read(1), errno.EBADF),
        (lambda: reader.truncate(0), errno.EINVAL),
        (lambda: writer.truncate(-1), errno.EINVAL),
        (lambda: writer.pwrite(b"", -1), errno.EINVAL),
        (lambda: reader.pread(-1, 0), errno.EINVAL),
    ):
        with pytest.raises(OSError) as refused:  # noqa: PT011 - which is below
            call()
        assert refused.value.errno == number
    reader.close()
    writer.close()


def test_closed(there: InProcess) -> None:
    file = there.run(there.kernel.open("f", RW | CREAT))
    there.run(file.close())
    there.run(file.close())
    assert there.asked.count(Opcode.RELEASE) == 1
    for call in (file.read, file.stat, file.sync):
        with pytest.raises(Misuse):
            there.run(call())


def test_umask_and_owner(there: InProcess, calls: Client) -> None:
    put(calls, "f")
    calls.mkdir("d", 0o777)
    assert stat.S_IMODE(calls.stat("f")[0]) == 0o644
    assert stat.S_IMODE(calls.stat("d")[0]) == 0o755
    with InProcess(there.disk, caller=Caller(1000, 1000, 1)) as other:
        theirs = Client(other)
        put(theirs, "theirs")
        assert theirs.stat("theirs")[2] == 1000
    assert there.disk.at("theirs").gid == 1000


def test_times(there: InProcess, calls: Client) -> None:
    put(calls, "f")
    calls.utime("f", -1_500_000_000, 2_000_000_001)
    found = there.run(there.kernel.stat("f"))
    assert (found.atime_ns, found.mtime_ns) == (-1_500_000_000, 2_000_000_001)
    calls.utime("f", None, 7)
    found = there.run(there.kernel.stat("f"))
    assert (found.atime_ns, found.mtime_ns) == (-1_500_000_000, 7)
    there.run(there.kernel.utime("f"))
    assert there.run(there.kernel.stat("f")).mtime_ns == 5_000_000_000, "the disk's own clock"


def test_extended_attributes(there: InProcess, calls: Client) -> None:
    put(calls, "f")
    calls.setxattr("f", "user.a", b"1")
    calls.setxattr("f", "user.b", bytes(60_000))
    assert calls.getxattr("f", "user.a") == b"1"
    assert calls.getxattr("f", "user.b") == bytes(60_000)
    assert there.run(there.kernel.listxattr("f")) == [b"user.a", b"user.b"]
    calls.removexattr("f", "user.a")
    for name, value, flags, number in (
        ("user.b", b"", os.XATTR_CREATE, errno.EEXIST),
        ("user.c", b"", os.XATTR_REPLACE, errno.ENODATA),
        ("user.c", bytes(70_000), 0, errno.E2BIG),
        ("user." + "n" * 255, b"", 0, errno.ERANGE),
    ):
        with pytest.raises(OSError) as refused:  # noqa: PT011 - which is below
            calls.setxattr("f", name, value, flags)
        assert refused.value.errno == number


def test_privileges_are_lost(there: InProcess, calls: Client) -> None:
    """Natively ATTRIB and then MODIFY; for ftruncate(2) both in one event."""
    put(calls, "f")
    calls.chmod("f", 0o4777)
    with InProcess(there.disk, caller=Caller(1000, 1000, 1)) as other:
        theirs = Client(other)
        group = other.watch("f", 0x6)
        file = theirs.open("f", RW)
        file.write(b"x")
        file.write(b"y")
        file.close()
        assert heard(group) == ["1:ATTRIB", "1:MODIFY"]
        there.disk.at("f").mode |= stat.S_ISUID
        theirs.truncate("f", 0)
        assert heard(group) == ["1:MODIFY|ATTRIB"]
    group = there.watch("f", 0x6)
    there.disk.at("f").mode |= stat.S_ISUID
    calls.truncate("f", 0)
    assert heard(group) == ["1:MODIFY"], "root keeps them"
    there.run(there.kernel.close_group(group))


def test_large_directory(there: InProcess, calls: Client) -> None:
    calls.mkdir("d")
    names = sorted(f"{index:05}-{'n' * (index % 200)}" for index in range(3000))
    for name in names:
        there.disk.do_node(f"d/{name}", stat.S_IFIFO | 0o600)
    assert calls.listdir("d") == names
    found = there.run(there.kernel.scandir("d", plus=True))
    assert sorted(each.name.decode() for each in found) == names
    assert all(each.entry is not None and each.entry.attributes.ino == each.ino for each in found)


def test_statvfs(there: InProcess) -> None:
    found = there.run(there.kernel.statvfs())
    assert (found.f_bsize, found.f_blocks, found.f_bfree, found.f_namemax) == (4096, 1000, 900, 255)


def test_a_failing_server_leaves_nothing(there: InProcess, calls: Client) -> None:
    """Whichever request of an operation fails: what was told before is forgotten."""
    calls.mkdir("d")
    put(calls, "d/f", b"content")
    works: list[Callable[[], object]] = [
        lambda: put(calls, "d/f"),
        lambda: put(calls, "d/new"),
        lambda: calls.rename("d/f", "g"),
        lambda: calls.link("d/f", "h"),
        lambda: calls.listdir("d"),
        lambda: calls.chmod("d/f", 0o600),
        lambda: calls.unlink("d/f"),
    ]
    for work in works:
        for fails_at in range(12):
            ask, left = there.kernel.ask, fails_at

            async def failing(opcode: int, node: int, body: bytes) -> bytes:
                nonlocal left
                left -= 1
                if left == -1 and opcode not in (Opcode.RELEASE, Opcode.RELEASEDIR):
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                return await ask(opcode, node, body)  # noqa: B023 - used within this turn

            there.kernel.ask = failing
            with suppress(OSError):
                work()
            there.kernel.ask = ask
            there.run(there.kernel.catch_up())
            assert len(there.kernel.inodes) == 1
