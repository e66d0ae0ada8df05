"""Mounts in containers, and mounts that are used from other namespaces than their own."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farwatch.events import Mask
from farwatch.linux import mounts
from tests.mounting.apart import CLONE_NEWPID, CLONE_NEWUSER, apart
from tests.mounting.mounted import SECONDS, Area, Ear, is_mounted, wait_until

pytestmark = pytest.mark.root

CREATE, DELETE = Mask.CREATE, Mask.DELETE
CONTAINER = mounts.CLONE_NEWNS | CLONE_NEWPID


class Signals:
    """Two processes tell each other how far they are; made before the fork."""

    def __init__(self) -> None:
        self._pipes = os.pipe(), os.pipe()

    def to_child(self) -> None:
        os.write(self._pipes[0][1], b".")

    def to_parent(self) -> None:
        os.write(self._pipes[1][1], b".")

    def from_parent(self) -> None:
        self._await(self._pipes[0][0])

    def from_child(self) -> None:
        self._await(self._pipes[1][0])

    def _await(self, fd: int) -> None:
        ready = select.select([fd], [], [], 3 * SECONDS)[0]
        assert ready, "the other side has not come so far"
        assert os.read(fd, 1) == b"."

    def close(self) -> None:
        for pipe in self._pipes:
            for fd in pipe:
                os.close(fd)


@contextmanager
def signals() -> Iterator[Signals]:
    made = Signals()
    try:
        yield made
    finally:
        made.close()


def test_all_of_it_in_a_container(area: Area) -> None:
    """A mount, its processes and who watches, in mount and pid namespaces of their own."""

    def act() -> None:
        result = area.run("mount", area.src, area.mnt, "--daemon")
        assert (result.returncode, result.stderr) == (0, "")
        with Ear(area.mnt) as ear:
            (area.src / "new").touch()
            (area.mnt / "own").touch()
            (area.src / "new").unlink()
            ear.hear_all((CREATE, "new"), (CREATE, "own"), (DELETE, "new"))
        result = area.run("unmount", area.mnt)
        assert (result.returncode, result.stderr) == (0, "")
        area.assert_nothing_left()

    apart(act, CONTAINER)
    assert (area.src / "own").exists()
    area.assert_nothing_left()


def test_a_container_that_is_ended_leaves_nothing(area: Area) -> None:
    def act() -> None:
        assert area.run("mount", area.src, area.mnt, "--daemon").returncode == 0

    apart(act, CONTAINER)
    area.assert_nothing_left()


def test_changes_come_from_outside_and_are_watched_from_there_too(area: Area) -> None:
    """The mount is a container's; the host writes in SRC, and looks in by /proc/PID/root."""
    with signals() as steps:

        def act() -> None:
            assert area.run("mount", area.src, area.mnt, "--daemon").returncode == 0
            with Ear(area.mnt) as ear:
                steps.to_parent()
                steps.from_parent()
                ear.hear_all((CREATE, "from-host"), (CREATE, "through-mount"))
                steps.to_parent()
                steps.from_parent()
            assert area.run("unmount", area.mnt).returncode == 0

        def until() -> None:
            steps.from_child()
            # A process of the container, found by what it was started with.
            pid = next(pid for pid in area.processes() if has(pid, area.mnt))
            visible = Path(f"/proc/{pid}/root/{area.mnt}")
            with Ear(visible) as ear:
                (area.src / "from-host").touch()
                ear.hear((CREATE, "from-host"))
                (visible / "through-mount").touch()
                ear.hear((CREATE, "through-mount"))
                assert (visible / "from-host").exists()
            steps.to_child()
            steps.from_child()
            steps.to_child()

        apart(act, CONTAINER, until=until)
    area.assert_nothing_left()


def has(pid: int, mnt: Path) -> bool:
    """Whether this process has something mounted there."""
    try:
        text = Path(f"/proc/{pid}/mountinfo").read_bytes()
    except OSError:
        return False
    return any(entry.mount_point == os.fsencode(mnt) for entry in mounts.parse_mountinfo(text))


@pytest.mark.parametrize(
    "flags",
    [mounts.CLONE_NEWNS, CONTAINER, mounts.CLONE_NEWNS | CLONE_NEWUSER],
    ids=["mount namespace", "and pid namespace", "and user namespace"],
)
def test_the_hosts_mount_watched_in_a_container(area: Area, flags: int) -> None:
    """It has been there when the container was made: a copy of the mount, of one file system."""
    with area.mounted() as process:
        with signals() as steps:

            def act() -> None:
                with Ear(area.mnt) as ear:
                    steps.to_parent()
                    ear.hear_all((CREATE, "remote"), (CREATE, "hosts"))
                    steps.to_parent()
                    if not flags & CLONE_NEWUSER:
                        (area.mnt / "containers").touch()

            def until() -> None:
                with Ear(area.mnt) as ear:
                    steps.from_child()
                    (area.src / "remote").touch()
                    (area.mnt / "hosts").touch()
                    steps.from_child()
                    if not flags & CLONE_NEWUSER:
                        ear.hear_all((CREATE, "remote"), (CREATE, "hosts"), (CREATE, "containers"))

            apart(act, flags, until=until)
        process.terminate()
        assert process.wait(SECONDS) == 0
        area.assert_nothing_left()


def test_what_is_mounted_later_gets_into_a_container(area: Area) -> None:
    """Where the directory is shared: the mount comes and goes there as on the host."""
    shared = area.home / "shared"
    shared.mkdir()
    mounts.mount(os.fsencode(shared), os.fsencode(shared), None, mounts.MS_BIND)
    mounts.mount(None, os.fsencode(shared), None, mounts.MS_SHARED)
    area.mnt = shared / "mnt"
    area.mnt.mkdir()
    try:
        with signals() as steps:

            def act() -> None:
                steps.to_parent()
                steps.from_parent()
                assert is_mounted(area.mnt)
                with Ear(area.mnt) as ear:
                    steps.to_parent()
                    ear.hear((CREATE, "remote"))
                    steps.to_parent()
                    ear.hear_all((Mask.UNMOUNT | Mask.ISDIR, ""), (Mask.IGNORED, ""))
                wait_until(lambda: not is_mounted(area.mnt), "its end here too")

            def until() -> None:
                steps.from_child()
                with area.mounted() as process:
                    steps.to_child()
                    steps.from_child()
                    (area.src / "remote").touch()
                    steps.from_child()
                    process.terminate()
                    assert process.wait(SECONDS) == 0
                    area.assert_nothing_left()

            apart(act, propagation=mounts.MS_SLAVE, until=until)
    finally:
        mounts.umount(os.fsencode(shared), mounts.MNT_DETACH)


def test_a_container_keeps_what_the_host_has_unmounted(area: Area) -> None:
    """Its files are served as long as it has them mounted; events end with the host's mount."""
    with signals() as steps:

        def act() -> None:
            steps.to_parent()
            steps.from_parent()
            assert not (area.mnt / "none").exists()
            assert (area.mnt / "f").read_text() == "x"
            (area.mnt / "g").write_text("y")
            subprocess.run(["umount", area.mnt], check=True)

        def until() -> None:
            steps.from_child()
            subprocess.run(["umount", area.mnt], check=True)
            steps.to_child()

        (area.src / "f").write_text("x")
        with area.mounted() as process:
            apart(act, until=until)
            assert process.wait(SECONDS) == 0
            area.assert_nothing_left()
            assert area.said() == ""
    assert (area.src / "g").read_text() == "y"


def test_root_of_a_user_namespace_only(area: Area) -> None:
    """A rootless container: what it may not have is said in a line; no mount is left."""

    def act() -> None:
        result = area.run("mount", area.src, area.mnt, "--daemon")
        assert result.stdout == ""
        if result.returncode:
            assert result.stderr.count("\n") == 1
            assert result.stderr.startswith("farwatch: ")
            assert "Traceback" not in result.stderr
            assert not is_mounted(area.mnt)
            return
        with Ear(area.mnt) as ear:
            (area.src / "x").touch()
            ear.hear((CREATE, "x"))
        assert area.run("unmount", area.mnt).returncode == 0

    apart(act, mounts.CLONE_NEWNS | CLONE_NEWUSER)
    area.assert_nothing_left()
