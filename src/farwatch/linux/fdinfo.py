"""Who watches what: the marks that /proc/PID/fdinfo lists, proc_pid_fdinfo(5).

What is not there: descriptors on their way through a socket, dnotify,
io_uring's own descriptors, processes of other pid namespaces, and of other
users for an ordinary user.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
from collections.abc import Container, Iterator
from functools import lru_cache
from typing import NamedTuple

from farwatch.linux.libc import syscall

Handle = bytes
"""``struct file_handle``, as in ``linux.handles``."""

FUSE_TYPE = 0x81
"""``FILEID_INO64_GEN``: the type of what FUSE, virtiofs included, makes handles of."""

FAN_MARK_EVICTABLE = 0x200
PERMISSION = 0x00010000 | 0x00020000 | 0x00040000 | 0x00100000
"""FAN_OPEN_PERM, FAN_ACCESS_PERM, FAN_OPEN_EXEC_PERM, FAN_PRE_ACCESS (linux/fanotify.h)."""

_HANDLE_HEADER = struct.Struct("=Ii")
_FUSE_HANDLE = struct.Struct("<IiIII")


class InotifyMark(NamedTuple):
    """One inotify watch.  ``handle`` is ``b""`` where the file system has none."""

    wd: int
    ino: int
    device: int
    mask: int
    handle: Handle


class FanotifyMark(NamedTuple):
    """One fanotify mark.

    ``kind`` is ``"inode"``, ``"mount"`` or ``"sb"``.  ``ino`` and ``handle``
    are set for inodes, ``mount_id`` for mounts, ``device`` for all but mounts;
    0 and ``b""`` otherwise.  ``flags`` are ``FAN_MARK_``… bits.
    """

    kind: str
    ino: int
    device: int
    mount_id: int
    flags: int
    mask: int
    ignored: int
    handle: Handle


Mark = InotifyMark | FanotifyMark


class Scan:
    """What a scan found; iterating gives the marks."""

    __slots__ = ("marks", "permission", "unpinned")

    def __init__(self, marks: list[Mark]) -> None:
        self.marks = marks
        self.unpinned = False
        """Whether a mark is among them that keeps no inode alive: a fanotify
        mark on the superblock, on one of the mounts, or an evictable one."""
        self.permission = False
        """Whether a fanotify mark among them asks for permission events."""
        for mark in marks:
            if isinstance(mark, FanotifyMark):
                self.unpinned |= mark.kind != "inode" or bool(mark.flags & FAN_MARK_EVICTABLE)
                self.permission |= bool(mark.mask & PERMISSION)

    def __iter__(self) -> Iterator[Mark]:
        return iter(self.marks)

    def __len__(self) -> int:
        return len(self.marks)


def decode_fuse(handle: Handle) -> tuple[int, int] | None:
    """The (node id, generation) in a handle of FUSE's; None for any other."""
    if len(handle) != _FUSE_HANDLE.size:
        return None
    size, kind, high, low, generation = _FUSE_HANDLE.unpack(handle)
    if size != 12 or kind != FUSE_TYPE:
        return None
    return high << 32 | low, generation


def parse_inotify(text: bytes, device: int | None = None) -> list[InotifyMark]:
    """The watches in the fdinfo of an inotify descriptor; of one st_dev only if given."""
    return [
        InotifyMark(int(wd, 16), int(ino, 16), _device(sdev), int(mask, 16), _handle(kind, data))
        for wd, ino, sdev, mask, kind, data in _inotify_pattern(device).findall(text)
    ]


def parse_fanotify(
    text: bytes, device: int | None = None, mounts: Container[int] | None = None
) -> list[FanotifyMark]:
    """The marks in the fdinfo of a fanotify descriptor.

    Those on inodes and superblocks of one st_dev only, and those on these
    mounts only, if given.
    """
    found = [
        FanotifyMark(
            "inode" if ino else "sb",
            int(ino or b"0", 16),
            _device(sdev),
            0,
            int(flags, 16),
            int(mask, 16),
            int(ignored, 16),
            _handle(kind, data),
        )
        for ino, sdev, flags, mask, ignored, kind, data in _fanotify_pattern(device).findall(text)
    ]
    for mount_id, flags, mask, ignored in _MOUNT.findall(text):
        number = int(mount_id, 16)
        if mounts is None or number in mounts:
            found.append(
                FanotifyMark(
                    "mount", 0, 0, number, int(flags, 16), int(mask, 16), int(ignored, 16), b""
                )
            )
    return found


_WORD = rb"([0-9a-f]+)"
_FHANDLE = rb"(?: ?fhandle-bytes:[0-9a-f]+ fhandle-type:([0-9a-f]+) f_handle:([0-9a-f]*))?"
_MOUNT = re.compile(
    rb"^fanotify mnt_id:%b mflags:%b mask:%b ignored_mask:%b" % ((_WORD,) * 4), re.MULTILINE
)


def _sdev(device: int | None) -> bytes:
    """The kernel prints its own form of a device number, 12 and 20 bits (``MKDEV``)."""
    if device is None:
        return _WORD
    return b"(%x)" % (os.major(device) << 20 | os.minor(device))


def _device(sdev: bytes) -> int:
    if not sdev:
        return 0
    number = int(sdev, 16)
    return os.makedev(number >> 20, number & 0xFFFFF)


def _handle(kind: bytes, data: bytes) -> Handle:
    if not kind:
        return b""
    handle = bytes.fromhex(data.decode())
    return _HANDLE_HEADER.pack(len(handle), int(kind, 16)) + handle


@lru_cache(maxsize=16)
def _inotify_pattern(device: int | None) -> re.Pattern[bytes]:
    return re.compile(
        rb"^inotify wd:%b ino:%b sdev:%b mask:%b ignored_mask:[0-9a-f]+%b"
        % (_WORD, _WORD, _sdev(device), _WORD, _FHANDLE),
        re.MULTILINE,
    )


@lru_cache(maxsize=16)
def _fanotify_pattern(device: int | None) -> re.Pattern[bytes]:
    return re.compile(
        rb"^fanotify (?:ino:%b )?sdev:%b mflags:%b mask:%b ignored_mask:%b%b"
        % (
            _WORD,
            _sdev(device),
            _WORD,
            _WORD,
            _WORD,
            _FHANDLE,
        ),
        re.MULTILINE,
    )


def scan(device: int, mounts: Container[int] = ()) -> Scan:
    """What one Scanner finds the first time."""
    return Scanner(device).scan(mounts)


class Scanner:
    """Looks again and again at every mark of every process that concerns a file system.

    What a long list says is read each time, but taken apart only when it has changed: a
    program with ten thousand watches would cost more than all others.
    """

    def __init__(self, device: int) -> None:
        """``device`` is the st_dev of the file system."""
        self._device = device
        self._mounts: Container[int] = ()
        self._marks: list[Mark] = []
        self._known: dict[str, tuple[bytes, list[InotifyMark]]] = {}
        self._before = self._known

    def scan(self, mounts: Container[int] = ()) -> Scan:
        """The marks that there are now.

        ``mounts`` are the ids (as in mountinfo) of those mounts that matter for mount marks.
        Processes that end meanwhile, or may not be read, are left out; this process's own
        descriptors are not.  A mark that several processes hold is listed for each, and one
        that several threads hold may be.
        """
        self._mounts, self._marks = mounts, []
        self._before, self._known = self._known, {}
        for process in os.listdir("/proc"):
            if process.isdigit():
                try:
                    self._scan_process(process)
                except OSError:
                    # It ended, or is not ours to read.
                    continue
        self._before = {}
        return Scan(self._marks)

    def _scan_process(self, process: str) -> None:
        tasks = f"/proc/{process}/task"
        # The links of the task directory are ".", ".." and one for each thread.
        if os.stat(tasks).st_nlink == 3:
            self._scan_table(f"/proc/{process}")
            return
        tables: list[int] = []
        for task in os.listdir(tasks):
            try:
                if _is_new(tables, int(task)):
                    self._scan_table(f"{tasks}/{task}")
            except OSError:
                continue

    def _scan_table(self, task: str) -> None:
        directory = os.open(task + "/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for fd in os.listdir(directory):
                try:
                    target = os.readlink(fd, dir_fd=directory)
                    if target == "anon_inode:inotify":
                        self._marks += self._inotify(f"{task}/fdinfo/{fd}")
                    elif target == "anon_inode:[fanotify]":
                        text = _read(f"{task}/fdinfo/{fd}")
                        self._marks += parse_fanotify(text, self._device, self._mounts)
                except FileNotFoundError:
                    # Closed meanwhile.  Any other error concerns the whole table.
                    continue
        finally:
            os.close(directory)

    def _inotify(self, path: str) -> list[InotifyMark]:
        text = _read(path)
        known, marks = self._before.get(path, (b"", []))
        if text != known:
            marks = parse_inotify(text, self._device)
        if len(text) > _LONG:
            self._known[path] = text, marks
        return marks


_LONG = 4096
"""Bytes; shorter texts are not worth being kept."""


_KCMP_FILES = 2
"""linux/kcmp.h"""
_kcmp = syscall(312, 272, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong)


def _is_new(tables: list[int], task: int) -> bool:
    """Whether this thread's file table is not that of one of ``tables``.

    kcmp(2) takes a microsecond, reading a table's links far longer.  Where the
    kernel does not have it or forbids it, every table counts as new.
    """
    try:
        if any(_kcmp(task, other, _KCMP_FILES, 0, 0) == 0 for other in tables):
            return False
    except OSError:
        pass
    tables.append(task)
    return True


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()
