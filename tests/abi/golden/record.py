"""Records what this machine's kernel sends to a FUSE server.

    sudo python -m tests.abi.golden.record > tests/abi/golden/requests-$(uname -r).txt

Mounts a file system in memory through /dev/fuse (farwatch's DevFuse and Session), does to
it what ``perform`` says, and writes every request as it was read: one line each, the name
of its opcode and the bytes in hex.  Process ids are replaced by 100, and times by 0 where
they are those of the moment; nothing else is changed.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from farwatch.abi.fuse import Opcode
from farwatch.linux.mounts import umount
from farwatch.session.reply import Reply
from farwatch.session.session import Session
from farwatch.transports.devfuse import DevFuse
from tests.session.kernel import in_session, settings
from tests.session.memory import MemoryDisk


def prepare(disk: MemoryDisk) -> None:
    """What is on the disk before; ``tests/session/test_requests.py`` starts from it too."""
    disk.do_mkdir("directory")
    disk.do_file("directory/file", b"content\n")
    disk.do_file("other", b"o")
    disk.do_symlink("link", b"directory/file")


def perform(mnt: Path) -> None:
    """What the recorded requests are for."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syncfs.argtypes = [ctypes.c_int]
    os.stat(mnt / "directory" / "file")
    try:
        os.stat(mnt / "missing")
    except FileNotFoundError:
        pass
    os.readlink(mnt / "link")
    fd = os.open(mnt / "created", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)
    os.pwrite(fd, b"written", 0)
    os.pread(fd, 100, 0)
    os.fsync(fd)
    os.ftruncate(fd, 4)
    os.posix_fallocate(fd, 0, 64)
    os.close(fd)
    os.chmod(mnt / "created", 0o600)
    os.chown(mnt / "created", 12, 34)
    os.utime(mnt / "created", ns=(1_500_000_000, 2_500_000_000))
    os.truncate(mnt / "created", 9)
    os.setxattr(mnt / "created", "user.key", b"value")
    os.getxattr(mnt / "created", "user.key")
    os.listxattr(mnt / "created")
    os.removexattr(mnt / "created", "user.key")
    os.link(mnt / "created", mnt / "second")
    os.symlink("created", mnt / "symlink")
    os.mkdir(mnt / "made", 0o750)
    os.mknod(mnt / "fifo", 0o010644)
    os.mknod(mnt / "device", 0o020644, os.makedev(7, 300))
    os.rename(mnt / "second", mnt / "made" / "third")
    renameat2(libc, mnt / "created", mnt / "other", 2)
    os.listdir(mnt)
    os.statvfs(mnt)
    os.unlink(mnt / "fifo")
    os.unlink(mnt / "made" / "third")
    os.rmdir(mnt / "made")


def renameat2(libc: ctypes.CDLL, old: Path, new: Path, flags: int) -> None:
    at = -100
    if libc.renameat2(at, os.fsencode(old), at, os.fsencode(new), flags):
        raise OSError(ctypes.get_errno(), "renameat2")


def anonymous(data: bytes) -> bytes:
    """The request with what differs from run to run taken out."""
    opcode, pid = struct.unpack_from("<I", data, 4)[0], struct.unpack_from("<I", data, 32)[0]
    changed = bytearray(data)
    if pid:
        struct.pack_into("<I", changed, 32, 100)
    if opcode == Opcode.SETATTR:
        valid = struct.unpack_from("<I", data, 40)[0]
        for now, seconds, nanoseconds in ((1 << 7, 72, 96), (1 << 8, 80, 100), (1 << 10, 88, 104)):
            if valid & now:
                struct.pack_into("<Q", changed, 40 + seconds - 40, 0)
                struct.pack_into("<I", changed, 40 + nanoseconds - 40, 0)
    return bytes(changed)


def record(perform_on: Callable[[Path], None]) -> list[bytes]:
    """The requests that the kernel sent, in order."""
    found: list[bytes] = []
    with MemoryDisk() as disk, DevFuse(1 << 17) as device, tempfile.TemporaryDirectory() as path:
        prepare(disk)
        session = Session(in_session(disk), settings(), disk, lambda thread, key: None)

        def receive(data: memoryview) -> Reply | None:
            found.append(bytes(data))
            return session.receive(data)

        thread = threading.Thread(target=device.serve, args=(receive, lambda: None))
        device.mount(b"golden", os.fsencode(path), 0)
        thread.start()
        try:
            perform_on(Path(path))
        finally:
            umount(os.fsencode(path), 0)
            thread.join()
            session.close()
    return found


def main() -> None:
    """Writes a recording to standard output."""
    requests = [anonymous(data) for data in record(perform)]
    kernel = platform.release().split("-")[0]
    out = [
        f"# What Linux {kernel} ({platform.machine()}) sent to a FUSE server, in order;",
        "# made by: python -m tests.abi.golden.record",
    ]
    for data in requests:
        opcode = struct.unpack_from("<I", data, 4)[0]
        out.append(f"{Opcode(opcode).name} {data.hex()}")
    sys.stdout.write("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
