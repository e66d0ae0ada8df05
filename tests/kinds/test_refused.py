"""What SRC may not be, and what is said then; each line names what can be done."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kinds.mounting import Mounting
from tests.kinds.places import OVERLAY_OPTIONS, overlay
from tests.mounting.mounted import Area

pytestmark = pytest.mark.root


def refusal(area: Area, source: Path) -> str:
    """The one line that is said when a directory is to be mounted."""
    result = area.run("mount", source, area.mnt)
    assert result.returncode != 0
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    area.assert_nothing_left()
    return lines[0]


def test_a_fuse_mount(area: Area, host: Mounting) -> None:
    (area.home / "source").mkdir()
    host.command("bindfs", area.home / "source", area.home / "below")
    line = refusal(area, area.home / "below")
    assert "FUSE" in line
    assert "--events" in line


def test_an_overlay_without_handles(area: Area) -> None:
    with overlay("index=off,nfs_export=off") as path:
        line = refusal(area, path)
    assert OVERLAY_OPTIONS in line
    assert "--events" in line


def test_a_file_system_of_the_kernel(area: Area) -> None:
    line = refusal(area, Path("/proc/self"))
    assert "proc" in line
    assert "--events" in line


@pytest.mark.parametrize("events", ["none", "inotify"])
def test_a_fuse_mount_with_other_events(area: Area, host: Mounting, events: str) -> None:
    source = area.home / "source"
    (source / "d").mkdir(parents=True)
    area.src = host.command("bindfs", source, area.home / "below")
    with area.mounted("--events", events):
        (area.mnt / "d" / "file").write_text("hello")
        assert (source / "d" / "file").read_text() == "hello"
        (area.mnt / "d" / "file").rename(area.mnt / "moved")
        assert (area.mnt / "moved").read_text() == "hello"
    area.assert_nothing_left()
