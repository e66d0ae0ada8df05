"""A mount over the very directory that it shows: whoever comes later has the events."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farwatch.events import Mask
from farwatch.linux import mounts
from tests.mounting.mounted import SECONDS, Area, Ear, is_mounted

pytestmark = pytest.mark.root


@pytest.fixture
def stacked(area: Area) -> Area:
    area.mnt.rmdir()
    area.mnt = area.src
    return area


@contextmanager
def below(area: Area) -> Iterator[str]:
    """SRC as those have it who were there before: by a descriptor."""
    fd = os.open(area.src, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def test_whoever_was_there_before_is_heard(stacked: Area) -> None:
    (stacked.src / "sub").mkdir()
    with below(stacked) as before, stacked.mounted() as process:
        with Ear(stacked.mnt) as ear, Ear(stacked.mnt / "sub") as inner:
            Path(before, "remote").touch()
            ear.hear((Mask.CREATE, "remote"))
            (stacked.mnt / "own").touch()
            ear.hear((Mask.CREATE, "own"))
            assert sorted(os.listdir(before)) == ["own", "remote", "sub"]
            Path(before, "sub", "deep").touch()
            inner.hear((Mask.CREATE, "deep"))
            Path(before, "remote").unlink()
            ear.hear((Mask.DELETE, "remote"))
        process.terminate()
        assert process.wait(SECONDS) == 0
    stacked.assert_nothing_left()
    assert sorted(os.listdir(stacked.src)) == ["own", "sub"]


def test_another_mount_of_the_directory_is_heard(stacked: Area) -> None:
    other = stacked.home / "other"
    other.mkdir()
    mounts.mount(os.fsencode(stacked.src), os.fsencode(other), None, mounts.MS_BIND)
    try:
        with stacked.mounted(), Ear(stacked.mnt) as ear:
            (other / "remote").touch()
            ear.hear((Mask.CREATE, "remote"))
    finally:
        mounts.umount(os.fsencode(other), mounts.MNT_DETACH)


@pytest.mark.parametrize("command", [["umount"], ["farwatch"]], ids=["umount", "farwatch unmount"])
def test_it_goes_and_the_directory_is_there_again(stacked: Area, command: list[str]) -> None:
    (stacked.src / "file").write_text("x")
    assert stacked.run("mount", stacked.src, stacked.mnt, "--daemon").returncode == 0
    assert is_mounted(stacked.mnt)
    if command == ["umount"]:
        subprocess.run([*command, stacked.mnt], check=True)
    else:
        assert stacked.run("unmount", stacked.mnt).returncode == 0
    stacked.assert_nothing_left()
    assert (stacked.src / "file").read_text() == "x"


def test_not_twice(stacked: Area) -> None:
    with stacked.mounted():
        result = stacked.run("mount", stacked.src, stacked.mnt)
        assert (result.returncode, result.stderr.count("\n")) == (1, 1)
        assert "already mounted there" in result.stderr


def test_a_mount_point_that_is_its_own_source(stacked: Area) -> None:
    """Over another mount, as over one of 9p's or of virtiofs's: that one is shown."""
    mounts.mount(b"none", os.fsencode(stacked.src), b"tmpfs", 0, b"mode=755")
    try:
        (stacked.src / "in-tmpfs").touch()
        with below(stacked) as before, stacked.mounted() as process:
            assert os.listdir(stacked.mnt) == ["in-tmpfs"]
            with Ear(stacked.mnt) as ear:
                Path(before, "remote").touch()
                ear.hear((Mask.CREATE, "remote"))
            process.terminate()
            assert process.wait(SECONDS) == 0
            assert sorted(os.listdir(stacked.src)) == ["in-tmpfs", "remote"]
    finally:
        stacked.clean()
