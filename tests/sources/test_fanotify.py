"""The source that is one fanotify mark on a file system."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import shutil
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from farwatch.events import READING, Mask
from farwatch.linux import mounts
from farwatch.linux.handles import fsid
from farwatch.linux.superblocks import whole_fsid
from farwatch.sources.fanotify import FanotifySource, NoSource
from tests.linux import areas

pytestmark = pytest.mark.root


@pytest.fixture
def tree() -> Iterator[Path]:
    with areas.tmpfs() as path:
        yield path


@pytest.fixture
def source(tree: Path) -> Iterator[FanotifySource]:
    with areas.opened(tree, os.O_PATH) as fd, FanotifySource.open(fd) as source:
        yield source


def kinds(source: FanotifySource) -> list[tuple[bytes, int]]:
    """(name, mask) of each record."""
    return [(r.place.name if r.place else b"", r.mask) for r in source.read()]


def readable(source: FanotifySource) -> bool:
    poll = select.poll()
    poll.register(source, select.POLLIN)
    return bool(poll.poll(0))


def test_reading_is_reported_while_it_is_wanted(tree: Path, source: FanotifySource) -> None:
    (tree / "a").write_bytes(b"x")
    source.read()
    (tree / "a").read_bytes()
    assert source.read() == []
    source.want(Mask.ACCESS | Mask.CREATE)
    assert source.wanted == Mask.ACCESS
    (tree / "a").read_bytes()
    assert kinds(source) == [(b"a", Mask.ACCESS)]
    source.want(READING)
    source.want(Mask.OPEN)
    (tree / "a").read_bytes()
    assert kinds(source) == [(b"a", Mask.OPEN)]
    source.want(0)
    (tree / "a").read_bytes()
    os.listdir(tree)
    assert source.read() == []


def test_a_program_that_is_run_is_told_apart(tree: Path, source: FanotifySource) -> None:
    shutil.copy("/bin/true", tree / "program")
    source.want(Mask.OPEN)
    source.read()
    subprocess.run([tree / "program"], check=True)
    assert kinds(source)[0] == (b"program", Mask.OPEN | Mask.OPEN_EXEC)
    source.want(0)
    subprocess.run([tree / "program"], check=True)
    assert source.read() == []


def test_the_base_stays_when_reading_is_dropped(tree: Path, source: FanotifySource) -> None:
    source.want(READING)
    source.want(0)
    (tree / "s").mkdir()
    (tree / "s").chmod(0o700)
    (tree / "s").rmdir()
    masks = [mask for _, mask in kinds(source)]
    assert masks == [
        Mask.CREATE | Mask.ISDIR,
        Mask.ATTRIB | Mask.DELETE_SELF | Mask.ISDIR,
        Mask.DELETE | Mask.ISDIR,
    ] or masks == [
        Mask.CREATE | Mask.DELETE | Mask.ISDIR,
        Mask.ATTRIB | Mask.DELETE_SELF | Mask.ISDIR,
    ]


def test_queued_counts_events(tree: Path, source: FanotifySource) -> None:
    assert source.queued() == 0
    assert not readable(source)
    for name in ("a", "b", "c"):
        (tree / name).mkdir()
    assert source.queued() == 3
    assert readable(source)
    source.read()
    assert source.queued() == 0


def test_read_is_bounded_and_goes_on(tree: Path, source: FanotifySource) -> None:
    for number in range(3000):
        (tree / f"{number}").mkdir()
    first = source.read(limit=1)
    assert 0 < len(first) < 3000
    rest = source.read()
    names = [record.place.name for record in first + rest if record.place]
    assert names == [b"%d" % number for number in range(3000)]


def test_records_tell_the_thread(tree: Path, source: FanotifySource) -> None:
    told: list[int] = []

    def work() -> None:
        told.append(threading.get_native_id())
        (tree / "a").mkdir()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [record.thread for record in source.read()] == told
    assert told != [os.getpid()]


def test_is_closed_after_use(tree: Path) -> None:
    with areas.opened(tree) as fd:
        before = len(os.listdir("/proc/self/fd"))
        with FanotifySource.open(fd) as source:
            pass
        source.close()
        assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ValueError, match="closed"):
        source.fileno()


# --- the ignore mark -------------------------------------------------------


@contextlib.contextmanager
def bind(tree: Path) -> Iterator[Path]:
    with areas.mounted(str(tree), "none", flags=mounts.MS_BIND) as path:
        yield path


def test_silence_hides_what_goes_through_the_bind(tree: Path, source: FanotifySource) -> None:
    (tree / "a").write_bytes(b"x")
    (tree / "s").mkdir()
    source.want(READING)
    with bind(tree) as quiet:
        with areas.opened(quiet, os.O_PATH) as fd:
            source.silence(fd)
        source.read()
        # Twice: a mark without SURV_MODIFY would be gone after the first write.
        for _ in range(2):
            (quiet / "a").write_bytes(b"y")
            with (quiet / "a").open("r+b", buffering=0) as file:
                file.write(b"z")
                os.posix_fallocate(file.fileno(), 0, 9)
            (quiet / "a").read_bytes()
            os.listdir(quiet / "s")
        # O_TRUNC and open(2)'s truncation have no mount in their event.
        assert {mask for _, mask in kinds(source)} <= {Mask.MODIFY}
        with (quiet / "a").open("r+b", buffering=0) as file:
            file.write(b"z")
        (quiet / "a").read_bytes()
        assert source.read() == []
        (tree / "a").read_bytes()
        assert kinds(source) == [(b"a", Mask.OPEN | Mask.ACCESS | Mask.CLOSE_NOWRITE)]


def test_silence_leaves_names_with_their_thread(tree: Path, source: FanotifySource) -> None:
    with bind(tree) as quiet:
        with areas.opened(quiet) as fd:
            source.silence(fd)
        source.read()
        (quiet / "a").mkdir()
        (quiet / "a").rename(quiet / "b")
        (quiet / "b").chmod(0o700)
        (quiet / "b").rmdir()
        records = source.read()
    seen = 0
    for record in records:
        seen |= record.mask
    assert {record.thread for record in records} == {os.getpid()}
    assert seen == (
        Mask.CREATE | Mask.RENAME | Mask.ATTRIB | Mask.DELETE | Mask.DELETE_SELF | Mask.ISDIR
    )


def test_silence_does_not_hide_truncation_by_name(tree: Path, source: FanotifySource) -> None:
    (tree / "a").write_bytes(b"x")
    with bind(tree) as quiet:
        with areas.opened(quiet) as fd:
            source.silence(fd)
        source.read()
        os.truncate(quiet / "a", 0)
        assert kinds(source) == [(b"a", Mask.MODIFY)]


# --- what cannot be a source -----------------------------------------------


def refused(path: Path | str) -> NoSource:
    with areas.opened(path, os.O_PATH) as fd:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(NoSource) as caught:
            FanotifySource.open(fd)
        assert len(os.listdir("/proc/self/fd")) == before
    message = str(caught.value)
    assert "\n" not in message
    return caught.value


def test_proc() -> None:
    error = refused("/proc")
    assert error.errno in (errno.EOPNOTSUPP, errno.ENODEV)
    assert "proc" in str(error)


@contextlib.contextmanager
def overlay(options: str) -> Iterator[Path]:
    with areas.directory() as base:
        for name in ("lower", "upper", "work"):
            (base / name).mkdir()
        data = f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work{options}"
        try:
            area = areas.mounted("farwatch-test", "overlay", data)
            with area as path:
                yield path
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            pytest.skip("no overlayfs here")


def test_overlayfs() -> None:
    with overlay(",index=off,nfs_export=off") as path:
        error = refused(path)
    assert error.errno == errno.EOPNOTSUPP
    assert "nfs_export=on" in str(error)


def test_overlayfs_with_handles_can() -> None:
    with overlay(",index=on,nfs_export=on") as path, areas.opened(path) as fd:
        with FanotifySource.open(fd) as source:
            (path / "a").mkdir()
            assert [name for name, _ in kinds(source)] == [b"a"]


def test_btrfs_subvolume() -> None:
    """Its changes have the id of the whole file system, and those beside it are heard too."""
    if shutil.which("btrfs") is None:
        pytest.skip("no btrfs tool here")
    with areas.image("btrfs") as path:
        subprocess.run(
            ["btrfs", "subvolume", "create", path / "sub"], check=True, capture_output=True
        )
        with areas.opened(path / "sub") as fd, FanotifySource.open(fd) as source:
            (path / "sub" / "a").mkdir()
            (path / "b").mkdir()
            records = source.read()
            assert [record.place.name for record in records if record.place] == [b"a", b"b"]
            assert {record.node[:8] for record in records if record.node} == {whole_fsid(fd)}
            assert fsid(fd) != whole_fsid(fd)


def test_further_file_systems() -> None:
    with areas.tmpfs() as one, areas.tmpfs() as two, areas.opened(one) as first:
        with areas.opened(two) as second, FanotifySource.open(first) as source:
            (two / "before").mkdir()
            source.add(second)
            source.add(second)
            (one / "a").mkdir()
            (two / "b").mkdir()
            assert [name for name, _ in kinds(source)] == [b"a", b"b"]
            source.want(Mask.OPEN)
            os.close(os.open(two / "b", os.O_RDONLY))
            assert [name for name, _ in kinds(source)] == [b"."]
            source.remove(fsid(second))
            source.remove(fsid(second))
            (two / "c").mkdir()
            (one / "d").mkdir()
            assert [name for name, _ in kinds(source)] == [b"d"]


def test_a_file_system_that_is_gone_can_be_removed() -> None:
    with areas.tmpfs() as one, areas.opened(one) as first, FanotifySource.open(first) as source:
        with areas.tmpfs() as two, areas.opened(two) as second:
            source.add(second)
            name = fsid(second)
        source.remove(name)
        (one / "a").mkdir()
        assert [name for name, _ in kinds(source)] == [b"a"]


# linux/fuse.h: struct fuse_in_header, fuse_out_header, fuse_init_out
FUSE_IN = struct.Struct("=IIQQIIII")
FUSE_OUT = struct.Struct("=IiQ")
FUSE_STATFS = 17
FUSE_INIT = 26
FUSE_INTERRUPT = 36


def answer_fuse(fd: int) -> None:
    """As little of a FUSE server as a file system without an id needs."""
    bodies = {FUSE_INIT: struct.pack("=IIII48x", 7, 31, 0, 0), FUSE_STATFS: bytes(80)}
    while True:
        try:
            request = os.read(fd, 1 << 17)
        except OSError:
            return
        _, opcode, unique, *_ = FUSE_IN.unpack_from(request)
        if opcode == FUSE_INTERRUPT:
            continue
        body = bodies.get(opcode, b"")
        error = 0 if body else -errno.ENOSYS
        os.write(fd, FUSE_OUT.pack(FUSE_OUT.size + len(body), error, unique) + body)


def test_fuse() -> None:
    if not os.path.exists("/dev/fuse"):
        pytest.skip("no /dev/fuse here")
    with areas.opened("/dev/fuse", os.O_RDWR) as fd:
        options = f"fd={fd},rootmode=40000,user_id=0,group_id=0"
        with areas.mounted("farwatch-test", "fuse.farwatch-test", options) as path:
            server = threading.Thread(target=answer_fuse, args=(fd,))
            server.start()
            error = refused(path)
        # The mount is gone, which ends the server's read.
        server.join()
    assert error.errno == errno.ENODEV
    assert re.search("FUSE", str(error))


def test_an_ordinary_user_is_told_so() -> None:
    def attempt() -> str:
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        with areas.opened("/tmp", os.O_PATH) as fd, pytest.raises(NoSource) as caught:
            FanotifySource.open(fd)
        assert caught.value.errno == errno.EPERM
        return str(caught.value)

    assert "root" in areas.in_child(attempt)
