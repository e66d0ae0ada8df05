"""What cannot be mounted: one line, a non-zero status, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from farwatch.linux import fusermount
from farwatch.linux.mounts import MNT_DETACH, mount, umount
from farwatch.mounting.checks import check
from farwatch.serving.refused import Refused
from tests.mounting.mounted import Area, is_mounted, wait_until
from tests.stage import farwatch_command

AS_NOBODY = """
import os, sys
import farwatch.cli.mount  # while this checkout may be read
from farwatch.cli.app import main
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
main(sys.argv[1:])
"""

DAEMON = pytest.mark.parametrize("options", [(), ("--daemon",)], ids=["foreground", "daemon"])


def assert_refused(
    area: Area, result: subprocess.CompletedProcess[str], *words: str, status: int = 1
) -> None:
    assert result.returncode == status, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("farwatch: ")
    assert result.stderr.count("\n") == 1, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr
    area.assert_nothing_left()


@DAEMON
@pytest.mark.root
@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("none", "mnt", "no such directory: {}/none"),
        ("src", "none", "no such directory: {}/none"),
        ("file", "mnt", "not a directory: {}/file"),
        ("src", "file", "not a directory: {}/file"),
        ("dangling", "mnt", "no such directory: {}/dangling"),
        ("src", "src/sub", "would lie in the directory that it shows"),
        ("src", "link-to-sub", "would lie in the directory that it shows"),
        ("mnt/sub", "mnt", "would cover the directory that it shows"),
        ("src", "src/../src/sub", "would lie in the directory that it shows"),
        ("src", "loop", "loop"),
    ],
)
def test_paths(area: Area, options: tuple[str, ...], source: str, target: str, words: str) -> None:
    (area.src / "sub").mkdir()
    (area.mnt / "sub").mkdir()
    (area.home / "file").touch()
    (area.home / "dangling").symlink_to("nowhere")
    (area.home / "link-to-sub").symlink_to("src/sub")
    (area.home / "loop").symlink_to("loop")
    result = area.run("mount", area.home / source, area.home / target, *options)
    assert_refused(area, result, words.format(area.home))


@DAEMON
@pytest.mark.root
def test_a_name_with_a_newline_is_still_one_line(area: Area, options: tuple[str, ...]) -> None:
    result = area.run("mount", str(area.home / "no\nsuch\x1b"), area.mnt, *options)
    assert_refused(area, result, "no such directory")


@DAEMON
@pytest.mark.root
def test_already_mounted(area: Area, options: tuple[str, ...]) -> None:
    with area.mounted() as process:
        result = area.run("mount", area.src, area.mnt, *options)
        assert (result.returncode, result.stdout) == (1, "")
        assert "already mounted there" in result.stderr
        assert result.stderr.count("\n") == 1
        assert process.poll() is None
        (area.src / "x").touch()
        assert (area.mnt / "x").exists()
        process.terminate()
        process.wait()
    area.assert_nothing_left()


@DAEMON
@pytest.mark.root
def test_a_dead_mount_in_the_way(area: Area, options: tuple[str, ...]) -> None:
    """Its server was killed, and its supervisor too: nobody took it away.

    Where MNT is to be itself, ``mount`` takes it away (tests/faults).
    """
    with area.mounted() as process:
        (server,) = area.servers(process.pid)
        for pid in (process.pid, server):
            os.kill(pid, signal.SIGKILL)
        process.wait()
        wait_until(lambda: not area.processes(), "the processes' end")
        if not is_mounted(area.mnt):
            return  # nothing is in the way
        with pytest.raises(OSError, match=r"not connected|abort"):
            os.listdir(area.mnt)
        result = area.run("mount", area.src, area.mnt / "below", *options)
        assert (result.returncode, result.stdout) == (1, "")
        assert "a dead mount is in the way" in result.stderr
        assert "farwatch unmount" in result.stderr
        assert result.stderr.count("\n") == 1
        assert area.run("unmount", area.mnt).returncode == 0
    area.assert_nothing_left()


def _overlay(area: Area, where: Path) -> None:
    for name in ("lower", "upper", "work"):
        (area.home / name).mkdir()
    options = ",".join(f"{name}dir={area.home / name}" for name in ("lower", "upper", "work"))
    mount(b"overlay", os.fsencode(where), b"overlay", 0, options.encode())


def _proc(area: Area, where: Path) -> None:
    mount(b"proc", os.fsencode(where), b"proc", 0)


@DAEMON
@pytest.mark.root
@pytest.mark.parametrize("make", [_overlay, _proc])
def test_what_cannot_be_a_source(
    area: Area, options: tuple[str, ...], make: Callable[[Area, Path], None]
) -> None:
    where = area.home / "odd"
    where.mkdir()
    make(area, where)
    try:
        result = area.run("mount", where, area.mnt, *options)
        assert_refused(area, result, "changes there cannot be watched", str(where))
    finally:
        umount(os.fsencode(where), MNT_DETACH)


@DAEMON
@pytest.mark.root
def test_another_farwatch_mount_cannot_be_a_source(area: Area, options: tuple[str, ...]) -> None:
    other = area.home / "other"
    other.mkdir()
    with area.mounted() as process:
        result = area.run("mount", area.mnt, other, *options)
        assert (result.returncode, result.stderr.count("\n")) == (1, 1)
        assert "changes there cannot be watched" in result.stderr
        assert not is_mounted(other)
        process.terminate()
        process.wait()
    area.assert_nothing_left()


@DAEMON
@pytest.mark.root
def test_an_ordinary_user(area: Area, options: tuple[str, ...]) -> None:
    result = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, "mount", area.src, area.mnt, *options],
        env=area.environment,
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    # A device that only root may open, as it is without udev; else MNT, which is root's.
    is_for_all = os.stat("/dev/fuse").st_mode & 0o6 == 0o6
    words = "no write access to mountpoint" if is_for_all else "only root may use FUSE here"
    assert_refused(area, result, words)


@DAEMON
@pytest.mark.root
@pytest.mark.parametrize(
    ("hide", "words"),
    [
        ("mount -t tmpfs none /dev", "the kernel has no FUSE here: /dev/fuse"),
        ("mount --bind /dev/null /dev/fuse", "farwatch:"),
    ],
    ids=["no device", "another device"],
)
def test_no_dev_fuse(area: Area, options: tuple[str, ...], hide: str, words: str) -> None:
    """In a mount namespace of its own, so that nobody else misses it."""
    command = " ".join(farwatch_command("mount", str(area.src), str(area.mnt), *options))
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{hide} && exec {command}"],
        env=area.environment,
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert_refused(area, result, words)


@DAEMON
@pytest.mark.root
def test_no_capability_to_mount(area: Area, options: tuple[str, ...]) -> None:
    """Root without CAP_SYS_ADMIN, as in a container."""
    if subprocess.run(["which", "setpriv"], capture_output=True, check=False).returncode:
        pytest.skip("needs setpriv (util-linux)")
    result = subprocess.run(
        [
            "setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin",
            *farwatch_command("mount", str(area.src), str(area.mnt), *options),
        ],
        env=area.environment, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert_refused(area, result)


def test_the_rest_is_refused_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(fusermount, "program", lambda: None)
    with pytest.raises(Refused, match="takes fusermount3"):
        check(str(tmp_path), str(tmp_path))
