"""Marks in /proc/PID/fdinfo."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from farwatch.events import Mask
from farwatch.linux import fanotify as fan
from farwatch.linux import fdinfo, handles, mounts
from farwatch.linux.fdinfo import FanotifyMark, InotifyMark
from farwatch.linux.inotify import IN_EXCL_UNLINK, Inotify
from tests.linux import areas

# Lines of Linux 6.18: a FUSE mount, ext4, one without handles.
INOTIFY = b"""pos:\t0
flags:\t02004000
mnt_id:\t15
ino:\t1057
inotify wd:2 ino:21c8d8 sdev:27 mask:fff ignored_mask:0 fhandle-bytes:c fhandle-type:81 \
f_handle:010000000200000007000000
inotify wd:1 ino:2 sdev:fe00000 mask:4000100 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 \
f_handle:a30321001dd97d52
inotify wd:3 ino:9 sdev:27 mask:2 ignored_mask:0\x20
"""
FANOTIFY = b"""pos:\t0
flags:\t02
mnt_id:\t15
ino:\t1057
fanotify flags:f10 event-flags:8000
fanotify ino:3 sdev:27 mflags:200 mask:40000002 ignored_mask:0 fhandle-bytes:c fhandle-type:81 \
f_handle:000000000300000000000000
fanotify mnt_id:1f mflags:40 mask:10020 ignored_mask:8
fanotify sdev:27 mflags:0 mask:2 ignored_mask:0
fanotify sdev:28 mflags:0 mask:2 ignored_mask:0
"""
FUSE_DEVICE = os.makedev(0, 0x27)


def fuse_handle(*words: int) -> bytes:
    return struct.pack("<IiIII", 12, 0x81, *words)


def test_parses_inotify() -> None:
    first = InotifyMark(2, 0x21C8D8, FUSE_DEVICE, 0xFFF, fuse_handle(1, 2, 7))
    second = InotifyMark(
        1,
        2,
        os.makedev(0xFE, 0),
        Mask.CREATE | IN_EXCL_UNLINK,
        struct.pack("=Ii", 8, 1) + bytes.fromhex("a30321001dd97d52"),
    )
    third = InotifyMark(3, 9, FUSE_DEVICE, Mask.MODIFY, b"")
    assert fdinfo.parse_inotify(INOTIFY) == [first, second, third]
    assert fdinfo.parse_inotify(INOTIFY, FUSE_DEVICE) == [first, third]
    assert fdinfo.parse_inotify(INOTIFY, os.makedev(0, 2)) == []


def test_parses_fanotify() -> None:
    inode = FanotifyMark("inode", 3, FUSE_DEVICE, 0, 0x200, 0x40000002, 0, fuse_handle(0, 3, 0))
    superblock = FanotifyMark("sb", 0, FUSE_DEVICE, 0, 0, 2, 0, b"")
    other = superblock._replace(device=os.makedev(0, 0x28))
    mount = FanotifyMark("mount", 0, 0, 0x1F, 0x40, 0x10020, 8, b"")
    assert fdinfo.parse_fanotify(FANOTIFY) == [inode, superblock, other, mount]
    assert fdinfo.parse_fanotify(FANOTIFY, FUSE_DEVICE, {0x1F}) == [inode, superblock, mount]
    assert fdinfo.parse_fanotify(FANOTIFY, FUSE_DEVICE, ()) == [inode, superblock]


def test_decodes_a_fuse_handle() -> None:
    assert fdinfo.decode_fuse(fuse_handle(1, 2, 7)) == (1 << 32 | 2, 7)
    for other in (b"", fuse_handle(1, 2, 7)[:-1], struct.pack("<IiIII", 12, 1, 1, 2, 7)):
        assert fdinfo.decode_fuse(other) is None


@contextlib.contextmanager
def waiting_child(work: Callable[[Callable[[], None]], None]) -> Iterator[None]:
    """A child that has called ``tell``, which returns when the block ends."""
    ready, tell = os.pipe()
    wait, release = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(release)

        def told() -> None:
            os.write(tell, b"x")
            os.read(wait, 1)

        try:
            work(told)
        finally:
            os._exit(0)
    os.close(tell)
    os.close(wait)
    try:
        with areas.reaped(pid):
            assert os.read(ready, 1) == b"x"
            yield
            os.close(release)
            release = -1
    finally:
        os.close(ready)
        if release >= 0:
            os.close(release)


@pytest.mark.root
class TestScan:
    @pytest.fixture
    def tree(self) -> Iterator[Path]:
        with areas.tmpfs() as path:
            yield path

    def scan(self, tree: Path, *mount_ids: int) -> fdinfo.Scan:
        return fdinfo.scan(tree.stat().st_dev, set(mount_ids))

    def test_finds_an_inotify_watch(self, tree: Path) -> None:
        (tree / "a").touch()
        assert list(self.scan(tree)) == []
        with Inotify() as inotify, areas.opened(tree) as fd:
            wd = inotify.add(tree / "a", Mask.MODIFY)
            inotify.add("/tmp", Mask.MODIFY)
            handle, _ = handles.name_to_handle(fd, b"a")
            inode, device = (tree / "a").stat().st_ino, tree.stat().st_dev
            found = self.scan(tree)
            assert list(found) == [InotifyMark(wd, inode, device, Mask.MODIFY, handle)]
            assert not found.unpinned and not found.permission
            again = handles.open_by_handle(fd, found.marks[0].handle, os.O_PATH)
            assert os.fstat(again).st_ino == inode
            os.close(again)

    def test_finds_it_in_another_process(self, tree: Path) -> None:
        def watch(tell: Callable[[], None]) -> None:
            with Inotify() as inotify:
                inotify.add(tree, Mask.CREATE)
                tell()

        with waiting_child(watch):
            assert [mark.mask for mark in self.scan(tree)] == [Mask.CREATE]

    def test_finds_it_in_a_thread_with_its_own_table(self, tree: Path) -> None:
        ready, done = threading.Event(), threading.Event()

        def work() -> None:
            mounts.unshare(mounts.CLONE_FILES)
            with Inotify() as inotify:
                inotify.add(tree, Mask.DELETE)
                ready.set()
                done.wait()

        with Inotify() as shared:
            shared.add(tree, Mask.CREATE)
            thread = threading.Thread(target=work)
            thread.start()
            assert ready.wait(10)
            masks = sorted(mark.mask for mark in self.scan(tree))
            done.set()
            thread.join()
        # The thread's table is a copy: it holds the shared one, too.
        assert masks == [Mask.CREATE, Mask.CREATE, Mask.DELETE]

    def test_a_thread_that_shares_is_told_once(self, tree: Path) -> None:
        done = threading.Event()
        threads = [threading.Thread(target=done.wait) for _ in range(3)]
        with Inotify() as inotify:
            inotify.add(tree, Mask.CREATE)
            for thread in threads:
                thread.start()
            assert len(self.scan(tree)) == 1
            done.set()
            for thread in threads:
                thread.join()

    def test_finds_it_where_the_main_thread_has_exited(self, tree: Path) -> None:
        def watch(tell: Callable[[], None]) -> None:
            def work() -> None:
                with Inotify() as inotify:
                    inotify.add(tree, Mask.CREATE)
                    while "State:\tZ" not in Path(f"/proc/{os.getpid()}/status").read_text():
                        pass
                    tell()
                os._exit(0)

            threading.Thread(target=work).start()
            # exit(2) of this thread alone; ctypes has let go of the GIL by then.
            number = 60 if os.uname().machine == "x86_64" else 93
            ctypes.CDLL(None).syscall(ctypes.c_long(number), 0)

        with waiting_child(watch):
            assert [mark.mask for mark in self.scan(tree)] == [Mask.CREATE]

    def test_finds_fanotify_marks_of_each_kind(self, tree: Path) -> None:
        mount_id = self.mount_id(tree)
        with fan.Group(fan.FAN_CLASS_NOTIF | fan.FAN_REPORT_FID | fan.FAN_CLOEXEC) as group:
            group.mark(fan.FAN_MARK_ADD, fan.FAN_MODIFY, path=bytes(tree))
            found = self.scan(tree)
            assert [mark[0] for mark in found] == ["inode"]
            assert not found.unpinned
            group.mark(fan.FAN_MARK_ADD | fan.FAN_MARK_MOUNT, fan.FAN_OPEN, path=bytes(tree))
            assert not self.scan(tree).unpinned
            found = self.scan(tree, mount_id)
            assert [mark[0] for mark in found] == ["inode", "mount"]
            assert found.unpinned and not found.permission

    def test_a_superblock_mark_pins_nothing(self, tree: Path) -> None:
        with fan.Group(fan.FAN_CLASS_NOTIF | fan.FAN_CLOEXEC) as group:
            group.mark(fan.FAN_MARK_ADD | fan.FAN_MARK_FILESYSTEM, fan.FAN_OPEN, path=bytes(tree))
            found = self.scan(tree)
            assert [mark[0] for mark in found] == ["sb"]
            assert found.unpinned and not found.permission

    def test_an_evictable_mark_pins_nothing(self, tree: Path) -> None:
        with fan.Group(fan.FAN_CLASS_NOTIF | fan.FAN_CLOEXEC) as group:
            flags = fan.FAN_MARK_ADD | fan.FAN_MARK_EVICTABLE
            group.mark(flags, fan.FAN_OPEN, path=bytes(tree))
            assert self.scan(tree).unpinned

    @pytest.mark.parametrize(
        "mask", [fan.FAN_OPEN_PERM, fan.FAN_ACCESS_PERM, fan.FAN_OPEN_EXEC_PERM]
    )
    def test_tells_of_permission_marks(self, tree: Path, mask: int) -> None:
        # Nothing may touch what is marked: nobody here gives the permission.
        (tree / "alone").touch()
        with fan.Group(fan.FAN_CLASS_CONTENT | fan.FAN_CLOEXEC) as group:
            group.mark(fan.FAN_MARK_ADD, mask, path=bytes(tree / "alone"))
            assert self.scan(tree).permission

    def mount_id(self, tree: Path) -> int:
        with areas.opened(tree, os.O_PATH) as fd:
            return mounts.statx_mount_id(fd)


def test_many_watches_are_all_read(tmp_path: Path) -> None:
    names = [tmp_path / str(number) for number in range(2000)]
    with Inotify() as inotify:
        for name in names:
            name.touch()
            inotify.add(name, Mask.MODIFY)
        inodes = {name.stat().st_ino for name in names}
        found = {mark.ino for mark in fdinfo.scan(tmp_path.stat().st_dev)}
    assert inodes <= found


def test_who_looks_again_sees_what_has_changed_in_a_long_list(tmp_path: Path) -> None:
    names = [tmp_path / str(number) for number in range(200)]
    for name in names:
        name.touch()
    inode = {name: name.stat().st_ino for name in names}
    scanner = fdinfo.Scanner(tmp_path.stat().st_dev)

    def masks() -> dict[int, int]:
        own = set(inode.values())
        return {mark.ino: mark.mask for mark in scanner.scan() if mark.ino in own}

    with Inotify() as inotify:
        numbers = {name: inotify.add(name, Mask.MODIFY) for name in names[:-1]}
        everything = {inode[name]: int(Mask.MODIFY) for name in names[:-1]}
        assert masks() == everything
        assert masks() == everything
        inotify.add(names[0], Mask.ATTRIB)
        inotify.add(names[-1], Mask.MODIFY)
        inotify.remove(numbers[names[1]])
        del everything[inode[names[1]]]
        assert masks() == everything | {
            inode[names[0]]: int(Mask.ATTRIB),
            inode[names[-1]]: int(Mask.MODIFY),
        }
    assert masks() == {}
