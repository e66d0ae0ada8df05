"""``mount -t farwatch``, and a line of fstab: real mount(8) and its helper."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from farwatch.events import Mask
from farwatch.linux import mounts
from tests.mounting.apart import apart
from tests.mounting.mounted import SECONDS, Area, Ear, is_mounted, wait_until
from tests.mounting.test_options import flags_of
from tests.stage import PROJECT

HELPER = Path(sys.executable).parent / "mount.farwatch"
UNITS = PROJECT / "packaging"


def helper(area: Area, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run(area, [HELPER, *arguments])


def run(area: Area, command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)),
        env=area.environment,
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS * 2,
        check=False,
    )


# As mount(8) calls it ------------------------------------------------------------------


@pytest.mark.root
def test_arguments_in_the_order_of_mount(area: Area) -> None:
    result = helper(area, area.src, area.mnt, "-n", "-o", "rw,noexec")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    with Ear(area.mnt) as ear:
        (area.src / "x").touch()
        ear.hear((Mask.CREATE, "x"))
    assert {"rw", "noexec"} <= flags_of(area.mnt)
    subprocess.run(["umount", area.mnt], check=True)
    area.assert_nothing_left()


@pytest.mark.root
def test_verbose_says_so_and_fake_does_nothing(area: Area) -> None:
    result = helper(area, area.src, area.mnt, "-fv", "-o", "ro")
    assert (result.returncode, result.stderr) == (0, "")
    area.assert_nothing_left()
    result = helper(area, area.src, area.mnt, "-v", "-t", "fuse.farwatch")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"mount.farwatch: {area.src} is mounted on {area.mnt}\n"
    subprocess.run(["umount", area.mnt], check=True)
    area.assert_nothing_left()


@pytest.mark.root
def test_sloppy(area: Area) -> None:
    result = helper(area, area.src, area.mnt, "-o", "colour=red")
    assert (result.returncode, result.stdout) == (32, "")
    assert result.stderr.startswith("mount.farwatch: unknown mount option: colour=red; ")
    assert result.stderr.count("\n") == 1
    area.assert_nothing_left()
    assert helper(area, area.src, area.mnt, "-s", "-o", "colour=red").returncode == 0
    subprocess.run(["umount", area.mnt], check=True)
    area.assert_nothing_left()


@pytest.mark.root
@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ((), 1, "SRC and MNT are needed"),
        (("{}/src",), 1, "SRC and MNT are needed"),
        (("{}/src", "{}/mnt", "{}/more"), 1, "SRC and MNT are needed"),
        (("{}/src", "{}/mnt", "-q"), 1, "option -q not recognized"),
        (("{}/src", "{}/mnt", "-o"), 1, "option -o requires argument"),
        (("{}/src", "{}/mnt", "-t", "ext4"), 1, "not a type of file system that it mounts: ext4"),
        (("{}/src", "{}/mnt", "-N", "/proc/1/ns/mnt"), 1, "cannot mount in another namespace"),
        (("{}/none", "{}/mnt"), 32, "no such directory: {}/none"),
        (("{}/none", "{}/mnt", "-f"), 32, "no such directory: {}/none"),
        (("{}/src", "{}/none"), 32, "no such directory: {}/none"),
        (("{}/src", "{}/mnt", "-o", "remount,ro"), 32, "no farwatch mount is there"),
        (("{}/src", "{}/mnt", "-o", "log_file=/no/such/log"), 32, "cannot write the log"),
    ],
)
def test_what_cannot_be(area: Area, arguments: Sequence[str], status: int, words: str) -> None:
    result = helper(area, *(argument.format(area.home) for argument in arguments))
    assert (result.returncode, result.stdout) == (status, "")
    assert result.stderr.startswith("mount.farwatch: ")
    assert result.stderr.count("\n") == 1
    assert words.format(area.home) in result.stderr
    area.assert_nothing_left()


def test_help_and_version() -> None:
    for option, words in (("--help", "Usage: mount.farwatch SRC MNT"), ("-V", "mount.farwatch ")):
        result = subprocess.run(
            [HELPER, option], capture_output=True, text=True, timeout=30, check=True
        )
        assert result.stdout.startswith(words)
        assert result.stderr == ""


# Through mount(8) ----------------------------------------------------------------------


def with_helper(area: Area, fstab: str = "") -> None:
    """In a namespace of its own: the helper is installed, and /etc/fstab is this."""
    installed = area.home / "sbin"
    installed.mkdir()
    for name in ("mount.farwatch", "mount.fuse.farwatch"):
        (installed / name).symlink_to(HELPER)
    real = os.path.realpath("/sbin")
    mounts.mount(b"none", os.fsencode(real), b"overlay", 0, f"lowerdir={installed}:{real}".encode())
    (area.home / "fstab").write_text(fstab)
    mounts.mount(os.fsencode(area.home / "fstab"), b"/etc/fstab", None, mounts.MS_BIND)


@pytest.mark.root
@pytest.mark.parametrize("kind", ["farwatch", "fuse.farwatch"])
def test_mount_by_type(area: Area, kind: str) -> None:
    def act() -> None:
        with_helper(area)
        options = "noexec,noauto,nofail,user,x-systemd.automount,comment=mine,cache=auto"
        result = run(area, ["mount", "-t", kind, "-o", options, area.src, area.mnt])
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
        assert "noexec" in flags_of(area.mnt)
        with Ear(area.mnt) as ear:
            (area.src / kind).touch()
            ear.hear((Mask.CREATE, kind))
        result = run(area, ["mount", "-o", "remount,ro", area.mnt])
        assert (result.returncode, result.stderr) == (0, "")
        assert "ro" in flags_of(area.mnt)
        with Ear(area.mnt) as ear:
            (area.src / kind).unlink()
            ear.hear((Mask.DELETE, kind))
        result = run(area, ["umount", area.mnt])
        assert (result.returncode, result.stderr) == (0, "")
        area.assert_nothing_left()

    apart(act)
    area.assert_nothing_left()


@pytest.mark.root
def test_lines_of_fstab(area: Area) -> None:
    """All of them, twice: what is mounted is not mounted again; a name may hold a space."""
    spaced = area.home / "a b"
    second = area.home / "second"
    spaced.mkdir()
    second.mkdir()
    escaped = str(spaced).replace(" ", "\\040")

    def act() -> None:
        with_helper(
            area,
            f"{area.src}  {area.mnt}  farwatch  defaults,ro,nofail  0  0\n"
            f"{escaped}  {second}  fuse.farwatch  _netdev,events=auto\n",
        )
        for _ in range(2):
            result = run(area, ["mount", "-a"])
            assert (result.returncode, result.stderr) == (0, "")
        assert "ro" in flags_of(area.mnt)
        for src, mnt in ((area.src, area.mnt), (spaced, second)):
            with Ear(mnt) as ear:
                (src / "x").touch()
                ear.hear((Mask.CREATE, "x"))
        result = run(area, ["mount", area.mnt])
        assert result.returncode == 32
        assert "already mounted" in result.stderr
        for mnt in (area.mnt, second):
            assert run(area, ["umount", mnt]).returncode == 0
        assert run(area, ["mount", area.mnt]).returncode == 0
        assert is_mounted(area.mnt)
        assert run(area, ["umount", area.mnt]).returncode == 0
        area.assert_nothing_left()

    apart(act)
    area.assert_nothing_left()


@pytest.mark.root
def test_mount_shows_what_is_wrong(area: Area) -> None:
    def act() -> None:
        with_helper(area, f"{area.home}/none  {area.mnt}  farwatch  nofail  0  0\n")
        result = run(area, ["mount", "-t", "farwatch", "-o", "colour", area.src, area.mnt])
        assert result.returncode == 32
        assert result.stderr == (
            "mount.farwatch: unknown mount option: colour;"
            " farwatch mount --help names those that there are\n"
        )
        result = run(area, ["mount", area.mnt])
        assert result.returncode == 32
        assert "no such directory" in result.stderr

    apart(act)


# With systemd --------------------------------------------------------------------------


@pytest.mark.root
def test_an_automounter_is_not_asked_for_what_it_waits_for(area: Area) -> None:
    """x-systemd.automount: to open MNT would be to wait until it is mounted."""

    def act() -> None:
        read, write = os.pipe()
        data = f"fd={write},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct"
        try:
            mounts.mount(b"auto", os.fsencode(area.mnt), b"autofs", 0, data.encode())
        except OSError as error:
            pytest.skip(f"no autofs here: {error}")
        result = subprocess.run(
            [HELPER, area.src, area.mnt],
            env=area.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            process_group=0,
        )
        assert (result.returncode, result.stderr) == (0, "")
        with Ear(area.mnt) as ear:
            (area.src / "x").touch()
            ear.hear((Mask.CREATE, "x"))
        subprocess.run(["umount", area.mnt], check=True)
        os.close(read)
        os.close(write)

    apart(act)
    area.assert_nothing_left()


@pytest.mark.root
def test_systemd_is_told_when_it_is_mounted(area: Area) -> None:
    where = area.home / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(where))
        manager.settimeout(SECONDS)
        area.environment["NOTIFY_SOCKET"] = str(where)
        with area.mounted() as process:
            assert manager.recv(4096) == f"READY=1\nSTATUS={area.mnt} is mounted\n".encode()
            process.terminate()
            assert process.wait(SECONDS) == 0
        # The agent has nothing to tell it: only the main process is heard.
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(4096)


@pytest.mark.root
def test_the_service_as_systemd_would_run_it(area: Area) -> None:
    """ExecStart with the words of its instance; stopped by a signal to the main process."""
    unit = (UNITS / "farwatch@.service").read_text()
    (start,) = (entry for entry in unit.splitlines() if entry.startswith("ExecStart="))
    words = start.partition("=")[2].split()
    assert words[0] == "/usr/local/bin/farwatch"
    filled = {"$OPTIONS": ["-o", "ro,nosuid"], "${SRC}": [str(area.src)], "%f": [str(area.mnt)]}
    command = [HELPER.with_name("farwatch")]
    command += [Path(part) for word in words[1:] for part in filled.get(word, [word])]
    with subprocess.Popen(command, env=area.environment, stdout=subprocess.PIPE) as process:
        try:
            wait_until(lambda: is_mounted(area.mnt), "the mount")
            with Ear(area.mnt) as ear:
                (area.src / "x").touch()
                ear.hear((Mask.CREATE, "x"))
            process.terminate()
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()
    area.assert_nothing_left()


@pytest.mark.parametrize("unit", ["farwatch@.service", "example.mount"])
def test_the_units_are_such_that_systemd_takes_them(tmp_path: Path, unit: str) -> None:
    """The program's place apart, which is nobody's here."""
    text = (UNITS / unit).read_text()
    program = tmp_path / "farwatch"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    name = {"farwatch@.service": "farwatch@mnt-data.service", "example.mount": "mnt-data.mount"}
    (tmp_path / name[unit]).write_text(text.replace("/usr/local/bin/farwatch", str(program)))
    try:
        result = subprocess.run(
            ["systemd-analyze", "verify", str(tmp_path / name[unit])],
            env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("systemd-analyze is not here")
    assert (result.returncode, result.stderr) == (0, "")
