"""File handles."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from farwatch.linux import handles, mounts
from tests.linux import areas


@pytest.mark.root
def test_a_handle_opens_what_it_was_made_of(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"text")
    with areas.opened(tmp_path) as fd:
        handle, mount_id = handles.name_to_handle(fd, b"a")
        assert mount_id == mounts.statx_mount_id(fd)
        (tmp_path / "a").rename(tmp_path / "b")
        again = handles.open_by_handle(fd, handle, os.O_RDONLY)
        with open(again, "rb") as file:
            assert file.read() == b"text"
            assert not os.get_inheritable(again)


def test_the_descriptor_itself(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with areas.opened(tmp_path) as fd, areas.opened(tmp_path / "a", os.O_PATH) as sub:
        by_name = handles.name_to_handle(fd, b"a")
        assert handles.name_to_handle(sub, b"", empty_path=True) == by_name
        with pytest.raises(FileNotFoundError):
            handles.name_to_handle(sub, b"")


@pytest.mark.root
def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    with areas.opened(tmp_path) as fd:
        handle, _ = handles.name_to_handle(fd, b"link")
        again = handles.open_by_handle(fd, handle, os.O_PATH)
        try:
            assert os.readlink("", dir_fd=again) == "nowhere"
        finally:
            os.close(again)
        with pytest.raises(OSError, check=lambda e: e.errno == errno.ELOOP):
            handles.open_by_handle(fd, handle, os.O_RDONLY)


@pytest.mark.root
def test_a_dead_inode_is_stale(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with areas.opened(tmp_path) as fd:
        handle, _ = handles.name_to_handle(fd, b"a")
        (tmp_path / "a").unlink()
        with pytest.raises(OSError, check=lambda e: e.errno == errno.ESTALE):
            handles.open_by_handle(fd, handle, os.O_PATH)


@pytest.mark.parametrize(
    "handle",
    [b"", b"\x08", b"\x08\0\0\0\1\0\0\0", b"\0\0\0\0\1\0\0\0" + bytes(8), b"\x08\1" + bytes(14)],
)
def test_what_is_no_handle_is_refused(tmp_path: Path, handle: bytes) -> None:
    with areas.opened(tmp_path) as fd:
        with pytest.raises(OSError, check=lambda e: e.errno in (errno.EINVAL, errno.EPERM)):
            handles.open_by_handle(fd, handle, os.O_PATH)


def test_a_missing_name_is_told(tmp_path: Path) -> None:
    with areas.opened(tmp_path) as fd, pytest.raises(FileNotFoundError) as caught:
        handles.name_to_handle(fd, b"missing")
    assert caught.value.filename == b"missing"


@pytest.mark.root
def test_fsid_tells_file_systems_apart() -> None:
    with areas.tmpfs() as one, areas.tmpfs() as two:
        with areas.opened(one) as fd, areas.opened(two) as other:
            assert len(handles.fsid(fd)) == 8
            assert handles.fsid(fd) != handles.fsid(other)
            assert handles.fsid(fd) == os.fstatvfs(fd).f_fsid.to_bytes(8, "little")


@pytest.mark.root
def test_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    names = [b"%d" % number for number in range(8)]
    for name in names:
        (tmp_path / name.decode()).touch()
    wrong: list[bytes] = []

    def work(fd: int, name: bytes) -> None:
        inode = os.stat(name, dir_fd=fd).st_ino
        for _ in range(500):
            handle, _mount = handles.name_to_handle(fd, name)
            again = handles.open_by_handle(fd, handle, os.O_PATH)
            if os.fstat(again).st_ino != inode:
                wrong.append(name)
            os.close(again)

    with areas.opened(tmp_path) as fd:
        threads = [threading.Thread(target=work, args=(fd, name)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
