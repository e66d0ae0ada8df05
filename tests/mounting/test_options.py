"""``-o``: what mount(8) and fstab users write, and what becomes of it."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farwatch.events import Mask
from farwatch.linux import mounts
from farwatch.mounting.options import DEFAULTS, Events, parse
from farwatch.serving.refused import Refused
from farwatch.session.settings import SPOKEN, Cache
from tests.mounting.mounted import SECONDS, Area, Ear, is_mounted, wait_until

RO, NOSUID = mounts.MOUNT_ATTR_RDONLY, mounts.MOUNT_ATTR_NOSUID
NODEV, NOEXEC = mounts.MOUNT_ATTR_NODEV, mounts.MOUNT_ATTR_NOEXEC
NOATIME, ATIME = mounts.MOUNT_ATTR_NOATIME, mounts.MOUNT_ATTR_ATIME


# What is written -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "attributes", "named"),
    [
        ("", 0, 0),
        ("defaults", 0, 0),
        ("ro", RO, RO),
        ("ro,rw", 0, RO),
        ("rw,ro", RO, RO),
        ("nosuid,nodev,noexec", NOSUID | NODEV | NOEXEC, NOSUID | NODEV | NOEXEC),
        ("noexec,exec", 0, NOEXEC),
        ("noatime", NOATIME, ATIME),
        ("noatime,strictatime", mounts.MOUNT_ATTR_STRICTATIME, ATIME),
        ("strictatime,relatime", 0, ATIME),
        ("noatime,atime", 0, ATIME),
        ("user", NOSUID | NODEV | NOEXEC, NOSUID | NODEV | NOEXEC),
        ("user=jane,exec", NOSUID | NODEV, NOSUID | NODEV | NOEXEC),
        ("noauto,nofail,_netdev,x-systemd.requires=a,comment=ro,X-what,,", 0, 0),
    ],
)
def test_flags(text: str, attributes: int, named: int) -> None:
    options = parse(text)
    assert (options.attributes, options.named) == (attributes, named)


def test_values() -> None:
    options = parse("cache=never,events=none,fsnotify=current,auto_unmount,allow_other,sync")
    assert options.cache is Cache.NEVER
    assert options.events is Events.NONE
    assert options.fsnotify == SPOKEN["current"]
    assert (options.auto_unmount, options.allow_other, options.synchronous) == (True, True, True)
    assert parse("sync,async") == DEFAULTS
    assert parse('log_file="/a,b",ro').log_file == "/a,b"
    assert parse('log_file="/a,b",ro').attributes == RO


def test_what_is_not_said_is_as_where_the_source_is() -> None:
    assert DEFAULTS.over(RO | NODEV) == RO | NODEV
    assert parse("rw,noexec").over(RO | NODEV) == NODEV | NOEXEC
    assert parse("relatime").over(NOATIME) == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ro,colour", "unknown mount option: colour"),
        ("ro=yes", "unknown mount option: ro=yes"),
        ("uid=5", "unknown mount option: uid=5"),
        ("bind", "unknown mount option: bind"),
        ("dirsync", "unknown mount option: dirsync"),
        ("cache=always", "cache=always; write cache=coherent, cache=auto, cache=never"),
        ("cache", "not a value of this mount option: cache; write"),
        ("events=", "events; write events=auto"),
        ("log_file=", "log_file; write log_file=FILE"),
    ],
)
def test_bad_options(text: str, words: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(text)
    line = f"{refused.value.what}: {refused.value.where}; {refused.value.remedy}"
    assert words in line


def test_remount_may_repeat_what_the_kernel_shows() -> None:
    shown = "rw,ro,nosuid,user_id=0,group_id=0,default_permissions,allow_other"
    assert parse(f"remount,{shown}").attributes == RO | NOSUID
    with pytest.raises(Refused, match="unknown mount option"):
        parse(shown)


def test_sloppy_takes_no_notice_of_the_unknown_but_of_bad_values() -> None:
    assert parse("colour,ro,uid=5", is_sloppy=True) == parse("ro")
    with pytest.raises(Refused):
        parse("cache=x", is_sloppy=True)


@given(st.text(alphabet='ro,="nx-', max_size=40))
def test_any_text_is_taken_or_refused(text: str) -> None:
    try:
        options = parse(text)
    except Refused:
        return
    assert not options.attributes & ~options.named


# What becomes of it --------------------------------------------------------------------


def flags_of(path: Path) -> set[str]:
    entries = mounts.parse_mountinfo(Path("/proc/self/mountinfo").read_bytes())
    entry = mounts.topmost(os.fsencode(path), entries)
    assert entry is not None
    return set(entry.options.decode().split(","))


@pytest.mark.root
def test_an_unknown_option_is_one_line(area: Area) -> None:
    for words in (("-o", "colour"), ("-o", "ro,cache=x"), ("-o",)):
        result = area.run("mount", area.src, area.mnt, *words)
        assert result.returncode in (1, 2)
        assert result.stdout == ""
        assert result.stderr.startswith("farwatch: ")
        assert result.stderr.count("\n") == 1
    area.assert_nothing_left()


@pytest.mark.root
def test_flags_are_those_of_the_mount(area: Area) -> None:
    suid = area.src / "suid"
    suid.write_text("#!/bin/sh\n")
    suid.chmod(0o4755)
    os.mknod(area.src / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    with area.mounted("-o", "nosuid", "-o", "nodev,noexec,nosymfollow,noatime") as process:
        assert {"rw", "nosuid", "nodev", "noexec", "nosymfollow", "noatime"} <= flags_of(area.mnt)
        with pytest.raises(PermissionError):
            subprocess.run([area.mnt / "suid"], check=False)
        with pytest.raises(PermissionError):
            (area.mnt / "null").open()
        process.terminate()
        assert process.wait(SECONDS) == 0
    with area.mounted():
        assert not {"nosuid", "nodev", "noexec", "noatime"} & flags_of(area.mnt)
        assert subprocess.run([area.mnt / "suid"], check=False).returncode == 0
        (area.mnt / "null").open().close()


@pytest.mark.root
def test_read_only_is_read_only_and_still_told(area: Area) -> None:
    """A replay is not refused by it: it goes through a mount of its own."""
    (area.src / "kept").write_text("old")
    with area.mounted("-o", "ro"), Ear(area.mnt, 0xFFF) as ear:
        for act in (
            (area.mnt / "new").touch,
            lambda: (area.mnt / "kept").write_text("new"),
            (area.mnt / "kept").unlink,
            lambda: (area.mnt / "kept").chmod(0o600),
        ):
            with pytest.raises(OSError, match="Read-only") as refused:
                act()
            assert refused.value.errno == errno.EROFS
        assert (area.mnt / "kept").read_text() == "old"
        ear.forget()
        (area.src / "new").touch()
        with (area.src / "kept").open("r+") as file:
            file.write("newer")
        (area.src / "kept").chmod(0o600)
        (area.src / "new").rename(area.src / "moved")
        (area.src / "moved").unlink()
        ear.hear(
            (Mask.CREATE, "new"),
            (Mask.MODIFY, "kept"),
            (Mask.ATTRIB, "kept"),
            (Mask.MOVED_FROM, "new"),
            (Mask.MOVED_TO, "moved"),
            (Mask.DELETE, "moved"),
        )
        assert (area.mnt / "kept").read_text() == "newer"
        assert not (area.src / "new").exists()


@pytest.mark.root
def test_flags_of_the_mount_that_the_source_is_on(area: Area) -> None:
    """As with a bind mount: what nosuid forbids is not allowed elsewhere by mounting it there."""
    os.mkdir(area.src / "sub")
    mounts.mount(os.fsencode(area.src), os.fsencode(area.src), None, mounts.MS_BIND)
    try:
        flags = mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_RDONLY
        mounts.mount(None, os.fsencode(area.src), None, mounts.MS_REMOUNT | mounts.MS_BIND | flags)
        with area.mounted() as process:
            assert {"ro", "nosuid", "nodev"} <= flags_of(area.mnt)
            process.terminate()
            assert process.wait(SECONDS) == 0
        with area.mounted("-o", "suid"):
            assert {"ro", "nodev"} <= flags_of(area.mnt)
            assert "nosuid" not in flags_of(area.mnt)
    finally:
        mounts.umount(os.fsencode(area.src), mounts.MNT_DETACH)


@pytest.mark.root
@pytest.mark.parametrize(("option", "is_kept"), [("noatime", True), ("strictatime", False)])
def test_access_times(area: Area, option: str, is_kept: bool) -> None:
    """Reading through MNT changes those of SRC's files, or does not."""
    file = area.src / "file"
    file.write_text("x")
    os.utime(file, ns=(10**18, 2 * 10**18))
    with area.mounted("-o", option):
        assert (area.mnt / "file").read_text() == "x"
        assert (file.stat().st_atime_ns == 10**18) is is_kept


@pytest.mark.root
def test_remount_changes_flags_and_nothing_else(area: Area) -> None:
    with area.mounted("-o", "nosuid"), Ear(area.mnt) as ear:
        result = area.run("mount", area.src, area.mnt, "-o", "remount,ro,noexec,cache=never")
        assert (result.returncode, result.stderr) == (0, "")
        assert {"ro", "nosuid", "noexec"} <= flags_of(area.mnt)
        (area.src / "new").touch()
        ear.hear((Mask.CREATE, "new"))
        assert area.run("mount", area.src, area.mnt, "-o", "remount,rw").returncode == 0
        assert {"rw", "nosuid", "noexec"} <= flags_of(area.mnt)
        (area.mnt / "own").touch()
        with (area.mnt / "own").open("w"):
            result = area.run("mount", area.src, area.mnt, "-o", "remount,ro")
            assert (result.returncode, result.stderr.count("\n")) == (1, 1)
            assert "busy" in result.stderr
    result = area.run("mount", area.src, area.mnt, "-o", "remount,ro")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "no farwatch mount is there" in result.stderr


@pytest.mark.root
def test_a_name_that_proc_mounts_has_no_room_for(area: Area) -> None:
    deep = area.src / ("a" * 200) / ("b" * 200)
    deep.mkdir(parents=True)
    area.src = deep
    with area.mounted(), Ear(area.mnt) as ear:
        (deep / "x").touch()
        ear.hear((Mask.CREATE, "x"))


@pytest.mark.root
def test_auto_unmount_when_everything_was_killed(area: Area) -> None:
    with area.mounted("-o", "auto_unmount") as process:
        (server,) = (
            pid for pid in area.servers(process.pid) if b"farwatch.mounting.guard" not in line(pid)
        )
        for pid in (process.pid, server):
            os.kill(pid, signal.SIGKILL)
        process.wait()
        wait_until(lambda: not is_mounted(area.mnt), "the guard's work")
        area.assert_nothing_left()


@pytest.mark.root
def test_auto_unmount_leaves_what_was_mounted_there_since(area: Area) -> None:
    for _ in range(3):
        assert (
            area.run("mount", area.src, area.mnt, "--daemon", "-o", "auto_unmount").returncode == 0
        )
        subprocess.run(["umount", area.mnt], check=True)
    assert area.run("mount", area.src, area.mnt, "--daemon").returncode == 0
    wait_until(
        lambda: not any(b"farwatch.mounting.guard" in line(pid) for pid in area.processes()),
        "the guards' end",
    )
    assert is_mounted(area.mnt)
    subprocess.run(["umount", area.mnt], check=True)
    area.assert_nothing_left()


def line(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


@pytest.mark.root
def test_without_events(area: Area) -> None:
    """What is done through MNT raises its events, what others do raises none."""
    with area.mounted("--events", "none"), Ear(area.mnt) as ear:
        (area.src / "remote").touch()
        (area.mnt / "own").touch()
        ear.hear((Mask.CREATE, "own"))
        assert (Mask.CREATE, "remote") not in ear.heard
        assert (area.mnt / "remote").exists()


@pytest.mark.root
def test_a_source_that_cannot_be_watched_without_events(area: Area) -> None:
    """A FUSE mount: refused with the option's name, and served with it."""
    other = area.home / "other"
    other.mkdir()
    with area.mounted():
        (area.src / "x").write_text("content")
        result = area.run("mount", area.mnt, other)
        assert (result.returncode, result.stderr.count("\n")) == (1, 1)
        assert "--events" in result.stderr
        assert area.run("mount", area.mnt, other, "--events=none", "--daemon").returncode == 0
        try:
            assert (other / "x").read_text() == "content"
        finally:
            subprocess.run(["umount", other], check=True)


@pytest.mark.root
@pytest.mark.parametrize(("events", "is_heard"), [("inotify", True), ("none", False)])
def test_overlayfs_as_it_is_by_default(area: Area, events: str, is_heard: bool) -> None:
    """It has no handles: what fanotify refuses can be had from inotify, or without events."""
    for name in ("lower", "upper", "work", "odd"):
        (area.home / name).mkdir()
    options = ",".join(f"{name}dir={area.home / name}" for name in ("lower", "upper", "work"))
    odd = area.home / "odd"
    mounts.mount(b"overlay", os.fsencode(odd), b"overlay", 0, options.encode())
    try:
        result = area.run("mount", odd, area.mnt)
        assert (result.returncode, result.stderr.count("\n")) == (1, 1)
        assert "--events=inotify" in result.stderr
        area.src = odd
        with area.mounted("--events", events) as process, Ear(area.mnt) as ear:
            (odd / "remote").write_text("x")
            (area.mnt / "own").mkdir()
            ear.hear_all((Mask.CREATE | Mask.ISDIR, "own"))
            if is_heard:
                ear.hear_all((Mask.CREATE, "remote"), (Mask.MODIFY, "remote"))
            assert (area.mnt / "remote").read_text() == "x"
            assert (odd / "own").is_dir()
            process.terminate()
            assert process.wait(SECONDS) == 0
            area.assert_nothing_left()
    finally:
        mounts.umount(os.fsencode(odd), mounts.MNT_DETACH)


@pytest.mark.root
def test_a_log_file_is_where_it_was_asked_for(area: Area) -> None:
    """A relative name is meant from where the command was given."""
    result = area.run(
        "mount", area.src, area.mnt, "--daemon", "-o", "log_file=log", cwd=str(area.home)
    )
    assert (result.returncode, result.stderr) == (0, "")
    (agent,) = area.agents()
    os.kill(agent, signal.SIGKILL)
    wait_until(lambda: "the agent ended" in (area.home / "log").read_text(), "a line in the log")
    subprocess.run(["umount", str(area.mnt)], check=True)
    area.assert_nothing_left()
    for options in ((), ("--daemon",)):
        result = area.run("mount", area.src, area.mnt, *options, "--log-file", "/no/such/log")
        assert (result.returncode, result.stderr.count("\n")) == (1, 1)
        assert "cannot write the log: No such file or directory: /no/such/log" in result.stderr
        area.assert_nothing_left()
