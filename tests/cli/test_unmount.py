"""``farwatch unmount``: which mount is meant, and who is in its way."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from farwatch.cli.demo.stage import farwatch_mount
from farwatch.cli.failure import Failure
from farwatch.cli.occupants import Occupant, is_agent, occupants
from farwatch.cli.unmount import find, resolve, unmount
from farwatch.linux.mounts import MountInfo, parse_mountinfo, topmost
from tests.cli.bind import bind_mount

MAP = """
f = open(sys.argv[1] + '/file')
m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
os.closerange(3, 64)  # the file's, and the one that mmap keeps
"""


def mount(number: int, parent: int, point: bytes, fstype: bytes = b"fuse.farwatch") -> MountInfo:
    line = b"%d %d 0:50 / %s rw - %s /srv rw" % (number, parent, point, fstype)
    return parse_mountinfo(line)[0]


def here() -> list[MountInfo]:
    return parse_mountinfo(Path("/proc/self/mountinfo").read_bytes())


@contextmanager
def program(code: str, *arguments: str | Path) -> Iterator[int]:
    """A process that runs ``code``, and has come to the end of it."""
    with subprocess.Popen(
        [sys.executable, "-c", f"import sys, os, mmap\n{code}\nprint(flush=True)\nsys.stdin.read()"]
        + [str(argument) for argument in arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"\n"
            yield process.pid
        finally:
            process.kill()


def test_the_uppermost_of_stacked_mounts() -> None:
    # The kernel lists by id, not by who covers whom.
    mounts = [mount(9, 7, b"/m"), mount(7, 1, b"/m"), mount(8, 9, b"/m/sub")]
    found = topmost(b"/m", mounts)
    assert found is not None
    assert found.mount_id == 9


def test_a_name_with_a_space(tmp_path: Path) -> None:
    point = tmp_path / "a b\\c"
    point.mkdir()
    escaped = os.fsencode(point).replace(b"\\", rb"\134").replace(b" ", rb"\040")
    assert find(point, [mount(7, 1, escaped)]).mount_point == os.fsencode(point)


def test_a_relative_name_and_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mnt").mkdir()
    (tmp_path / "link").symlink_to("mnt")
    mounts = [mount(7, 1, os.fsencode(tmp_path / "mnt"))]
    monkeypatch.chdir(tmp_path)
    for name in ("mnt", "./mnt/", "link", "link/../mnt", str(tmp_path / "mnt")):
        assert find(Path(name), mounts).mount_id == 7
    monkeypatch.chdir(tmp_path / "mnt")
    assert resolve(Path(), mounts) == os.fsencode(tmp_path / "mnt")


def test_what_is_not_ours(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="nothing is mounted there"):
        find(tmp_path, [])
    point = os.fsencode(tmp_path)
    with pytest.raises(Failure, match="ext4 is mounted there"):
        find(tmp_path, [mount(7, 1, point, b"ext4")])
    with pytest.raises(Failure, match=r"covered by another mount \(tmpfs\)"):
        find(tmp_path, [mount(7, 1, point), mount(8, 7, point, b"tmpfs")])


def test_the_command_says_it_in_one_line(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "farwatch", "unmount", tmp_path / "gone"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr == (
        f"farwatch: not a farwatch mount: {tmp_path}/gone; nothing is mounted there\n"
    )


@pytest.mark.root
@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("os.chdir(sys.argv[1])", "working directory"),
        ("f = open(sys.argv[1] + '/file')", "open file {}/file"),
        (
            MAP,
            "mapped file {}/file",
        ),
    ],
    ids=["cwd", "descriptor", "map"],
)
def test_who_uses_a_mount(tmp_path: Path, code: str, how: str) -> None:
    source, point = tmp_path / "source", tmp_path / "mount point"
    source.mkdir()
    point.mkdir()
    (source / "file").write_text("x")
    with bind_mount(source, point):
        entry = topmost(os.fsencode(point), here())
        assert entry is not None
        assert occupants(entry) == []
        with program(code, point) as pid:
            found = occupants(entry)
    assert [(user.pid, user.how) for user in found] == [(pid, how.format(point))]


@pytest.mark.root
def test_a_root_directory_keeps_it_busy_too(tmp_path: Path) -> None:
    source, point = tmp_path / "source", tmp_path / "mnt"
    source.mkdir()
    point.mkdir()
    with bind_mount(source, point):
        entry = topmost(os.fsencode(point), here())
        assert entry is not None
        with program("os.chroot(sys.argv[1])", point) as pid:
            assert [(user.pid, user.how) for user in occupants(entry)] == [(pid, "root directory")]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (b"/usr/bin/python3 -P -m farwatch.agent --quiet /mnt", True),
        (b"/usr/bin/python3 /usr/local/bin/farwatch agent /mnt", True),
        (b"python3 -m farwatch agent /mnt", True),
        (b"/usr/bin/python3 -I /usr/local/bin/farwatch-agent.pyz /mnt", True),
        (b"/usr/bin/python3 /usr/local/bin/farwatch mount agent /mnt", False),
        (b"/usr/bin/ssh-agent farwatch", False),
    ],
)
def test_an_agent_is_known_by_how_it_was_started(command: bytes, expected: bool) -> None:
    assert is_agent(command.split()) == expected


@contextmanager
def farwatch_mounted(tmp_path: Path) -> Iterator[Path]:
    source, point = tmp_path / "source", tmp_path / "mnt"
    source.mkdir()
    point.mkdir()
    with farwatch_mount(source, point):
        yield point


def unmounted(*arguments: str | Path) -> tuple[int, str]:
    result = subprocess.run(
        [sys.executable, "-m", "farwatch", "unmount", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stdout == ""
    return result.returncode, result.stderr


@pytest.mark.root
def test_a_mount_goes(tmp_path: Path) -> None:
    with farwatch_mounted(tmp_path) as point:
        assert unmounted(point) == (0, "")
        assert topmost(os.fsencode(point), here()) is None
        status, said = unmounted(point)
        assert (status, said.count("\n")) == (1, 1)


@pytest.mark.root
def test_a_mount_in_use_stays_and_lazy_detaches_it(tmp_path: Path) -> None:
    with (
        farwatch_mounted(tmp_path) as point,
        program("os.chdir(sys.argv[1])", point) as pid,
    ):
        status, said = unmounted(point)
        assert status == 1
        assert said.startswith("farwatch: in use by python")
        assert f"(pid {pid}: working directory): {point}; end that use" in said
        assert topmost(os.fsencode(point), here()) is not None
        assert unmounted("--lazy", point) == (0, "")
        assert topmost(os.fsencode(point), here()) is None


@contextmanager
def in_flight(point: Path) -> Iterator[socket.socket]:
    """A directory there is open in no process, but on its way to this one."""
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        fd = os.open(point, os.O_RDONLY)
        socket.send_fds(sender, [b"x"], [fd])
        os.close(fd)
        yield receiver


@pytest.mark.root
def test_who_has_let_go_when_looked_for_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with farwatch_mounted(tmp_path) as point, in_flight(point) as receiver:

        def look(mount: MountInfo) -> list[Occupant]:
            found = occupants(mount)
            _, fds, _, _ = socket.recv_fds(receiver, 1, 1)
            for fd in fds:
                os.close(fd)
            return found

        monkeypatch.setattr("farwatch.cli.unmount.occupants", look)
        assert CliRunner().invoke(unmount, [str(point)]).exit_code == 0
        assert topmost(os.fsencode(point), here()) is None


@pytest.mark.root
def test_but_not_for_ever(tmp_path: Path) -> None:
    with farwatch_mounted(tmp_path) as point, in_flight(point):
        assert unmounted(point) == (
            1,
            f"farwatch: in use: {point}; end that use, or detach the mount with --lazy\n",
        )
        assert topmost(os.fsencode(point), here()) is not None


@pytest.mark.root
def test_what_is_mounted_below_is_named(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with farwatch_mounted(tmp_path) as point:
        (point / "below").mkdir()
        with bind_mount(tmp_path / "other", point / "below"):
            status, said = unmounted(point)
    assert (status, said) == (
        1,
        f"farwatch: something is mounted below it: {point}/below; unmount that first\n",
    )
