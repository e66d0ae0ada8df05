"""What an ordinary user cannot mount: one line, a non-zero status, nothing left behind."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.ordinary.area import OrdinaryArea
from tests.ordinary.user import GID, UID

pytestmark = pytest.mark.root


def refused(area: OrdinaryArea, *words: str, **options: str) -> None:
    result = area.run("mount", area.src, area.mnt, *options.get("options", "").split())
    assert (result.returncode, result.stdout) == (1, ""), result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("farwatch: ")
    for word in words:
        assert word in lines[0]
    area.assert_nothing_left()


@pytest.mark.long
def test_a_mount_point_of_somebody_elses(area: OrdinaryArea) -> None:
    os.chown(area.mnt, 0, 0)
    refused(area, "cannot mount: ", "no write access to mountpoint", str(area.mnt))


@pytest.mark.long
def test_a_source_that_may_not_be_read(area: OrdinaryArea) -> None:
    os.chown(area.src, 0, 0)
    area.src.chmod(0o700)
    refused(area, "Permission denied", str(area.src))


@pytest.mark.long
def test_fanotify_is_not_for_users(area: OrdinaryArea) -> None:
    refused(area, "changes there cannot be watched", options="--events fanotify")


@pytest.mark.long
def test_allow_other_where_it_is_not_allowed(area: OrdinaryArea) -> None:
    if "\nuser_allow_other" in Path("/etc/fuse.conf").read_text():
        pytest.skip("/etc/fuse.conf allows it")
    refused(area, "user_allow_other", options="-o allow_other")


def test_without_fusermount3(area: OrdinaryArea) -> None:
    """In a mount namespace of its own, so that nobody else misses it."""
    hidden = "mount --bind /dev/null /usr/bin/fusermount3 && exec setpriv --reuid={} --regid={}"
    command = area.command("mount", area.src, area.mnt)
    shell = f"{hidden.format(UID, GID)} --clear-groups {' '.join(command[4:])}"
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", shell],
        env=area.environment, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "fusermount3" in result.stderr
    assert "install the package fuse3" in result.stderr
    assert result.stderr.count("\n") == 1
    area.assert_nothing_left()


@pytest.mark.long
def test_dev_fuse_is_roots_only(area: OrdinaryArea) -> None:
    os.chmod("/dev/fuse", 0o600)
    try:
        refused(area, "only root may use FUSE here: /dev/fuse")
    finally:
        os.chmod("/dev/fuse", 0o666)
