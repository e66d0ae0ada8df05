"""SRC, MNT, or what they are in, is renamed or removed while it is mounted."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from farwatch.events import Mask
from farwatch.linux.mounts import MNT_DETACH, MS_BIND, mount, umount
from tests.mounting.mounted import SECONDS, Area, Ear, is_mounted, wait_until

pytestmark = pytest.mark.root

CREATE, DELETE = Mask.CREATE, Mask.DELETE


def test_the_source_is_renamed(area: Area) -> None:
    """It is the directory that is shown, not the name."""
    with area.mounted() as process, Ear(area.mnt) as ear:
        area.src.rename(area.home / "moved")
        (area.home / "moved" / "a").touch()
        ear.hear((CREATE, "a"))
        # Whatever is made under the old name is another directory.
        area.src.mkdir()
        (area.src / "elsewhere").touch()
        (area.mnt / "own").touch()
        (area.home / "moved" / "b").touch()
        ear.hear((CREATE, "own"), (CREATE, "b"))
        assert sorted(os.listdir(area.mnt)) == ["a", "b", "own"]
        assert (CREATE, "elsewhere") not in ear.heard
        process.terminate()
        assert process.wait(SECONDS) == 0
        area.assert_nothing_left()


def test_the_directory_that_the_source_is_in_is_renamed(area: Area) -> None:
    inner = area.home / "outer" / "inner"
    inner.mkdir(parents=True)
    area.src = inner
    with area.mounted(), Ear(area.mnt) as ear:
        (area.home / "outer").rename(area.home / "changed")
        (area.home / "changed" / "inner" / "x").touch()
        ear.hear((CREATE, "x"))


def test_the_source_is_removed_with_all_that_is_in_it(area: Area) -> None:
    """Each name's DELETE is told; what is left is an empty directory that takes nothing."""
    (area.src / "sub").mkdir()
    (area.src / "sub" / "f").touch()
    (area.src / "f").touch()
    with area.mounted() as process, Ear(area.mnt) as ear, Ear(area.mnt / "sub") as inner:
        shutil.rmtree(area.src)
        ear.hear_all((DELETE, "f"), (DELETE | Mask.ISDIR, "sub"))
        inner.hear((DELETE, "f"), (Mask.IGNORED, ""))
        assert os.listdir(area.mnt) == []
        with pytest.raises(OSError, match="No such file") as refused:
            (area.mnt / "new").touch()
        assert refused.value.errno == errno.ENOENT
        with pytest.raises(FileNotFoundError):
            (area.mnt / "new").mkdir()
        area.src.mkdir()
        (area.src / "in-another").touch()
        assert os.listdir(area.mnt) == []
        process.terminate()
        assert process.wait(SECONDS) == 0
        area.assert_nothing_left()


def test_the_file_system_of_the_source_is_unmounted(area: Area) -> None:
    """It is not kept busy, and what is shown goes on."""
    mount(b"none", os.fsencode(area.src), b"tmpfs", 0, b"mode=755")
    try:
        (area.src / "f").write_text("x")
        with area.mounted() as process:
            umount(os.fsencode(area.src))
            assert (area.mnt / "f").read_text() == "x"
            (area.mnt / "g").touch()
            assert sorted(os.listdir(area.mnt)) == ["f", "g"]
            process.terminate()
            assert process.wait(SECONDS) == 0
            area.assert_nothing_left()
    finally:
        if is_mounted(area.src):
            umount(os.fsencode(area.src), MNT_DETACH)


@pytest.mark.parametrize("how", ["signal", "umount", "farwatch unmount", "killed server"])
def test_the_directory_that_the_mount_is_in_is_renamed(area: Area, how: str) -> None:
    """Whoever started it knows it under another name; it ends all the same."""
    outer, changed = area.home / "outer", area.home / "changed"
    area.mnt = outer / "mnt"
    area.mnt.mkdir(parents=True)
    with area.mounted() as process:
        outer.rename(changed)
        area.mnt = changed / "mnt"
        with Ear(area.mnt) as ear:
            (area.src / "x").touch()
            ear.hear((CREATE, "x"))
        (agent,) = area.agents()
        os.kill(agent, signal.SIGKILL)
        wait_until(lambda: area.agents() not in ([], [agent]), "another agent")
        with Ear(area.mnt) as ear:
            (area.src / "y").touch()
            ear.hear((CREATE, "y"))
        if how == "signal":
            process.terminate()
        elif how == "umount":
            subprocess.run(["umount", area.mnt], check=True)
        elif how == "farwatch unmount":
            assert area.run("unmount", area.mnt).returncode == 0
        else:
            (server,) = area.servers(process.pid)
            os.kill(server, signal.SIGKILL)
        assert process.wait(SECONDS) == (1 if how == "killed server" else 0), area.said()
        area.assert_nothing_left()
        assert "Traceback" not in area.said()


def test_the_mount_is_moved(area: Area) -> None:
    """mount --move, as when an initramfs hands over to the system."""
    other, private = area.home / "other", area.home / "private"
    other.mkdir()
    private.mkdir()
    area.mnt.rmdir()
    area.mnt = private / "mnt"
    # Nothing can be moved out of a mount that is shared.
    mount(os.fsencode(private), os.fsencode(private), None, MS_BIND)
    try:
        subprocess.run(["mount", "--make-private", private], check=True)
        area.mnt.mkdir()
        with area.mounted() as process:
            subprocess.run(["mount", "--move", area.mnt, other], check=True)
            area.mnt = other
            with Ear(other) as ear:
                (area.src / "x").touch()
                ear.hear((CREATE, "x"))
            process.terminate()
            assert process.wait(SECONDS) == 0, area.said()
            area.assert_nothing_left()
    finally:
        umount(os.fsencode(private), MNT_DETACH)


def test_something_else_is_mounted_over_it(area: Area) -> None:
    """A signal never takes away what is another's: it says what is in the way."""
    with area.mounted() as process:
        mount(b"none", os.fsencode(area.mnt), b"tmpfs", 0)
        (area.mnt / "over").touch()
        process.terminate()
        wait_until(lambda: "another mount covers it" in area.said(), "a word about it")
        assert process.poll() is None
        process.terminate()
        assert process.wait(SECONDS) == 1
        assert "is left without a server" in area.said()
        assert Path(area.mnt / "over").exists()
        umount(os.fsencode(area.mnt))
        result = area.run("unmount", area.mnt)
        assert (result.returncode, result.stderr) == (0, "")
        area.assert_nothing_left()


def test_what_lay_over_it_is_gone_again(area: Area) -> None:
    with area.mounted() as process, Ear(area.mnt) as ear:
        mount(b"none", os.fsencode(area.mnt), b"tmpfs", 0)
        umount(os.fsencode(area.mnt))
        (area.src / "x").touch()
        ear.hear((CREATE, "x"))
        process.terminate()
        assert process.wait(SECONDS) == 0
        area.assert_nothing_left()
