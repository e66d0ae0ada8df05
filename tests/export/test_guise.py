"""How nodes are shown where an export spans several mounts."""

from __future__ import annotations

import os
import stat

from farwatch.export.guise import CAPABILITIES, Guise
from farwatch.linux.mounts import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID

HERE, THERE = b"here____", b"there___"


def status(device: int, ino: int = 7, mode: int = stat.S_IFREG | 0o6755) -> os.stat_result:
    known = os.stat("/dev/null")
    fields = list(known[:10])
    fields[:3] = [mode, ino, device]
    return os.stat_result(fields, {"st_rdev": known.st_rdev})


def test_the_first_device_is_shown_as_it_is() -> None:
    assert Guise(5).of(HERE, status(5)) == (7, stat.S_IFREG | 0o6755, os.makedev(1, 3))


def test_each_device_has_numbers_of_its_own() -> None:
    guise = Guise(0)
    for device in range(1, 5000):
        assert not guise.knows(device)
        guise.learn(device, device.to_bytes(8, "little"))
    shown = {guise.of(HERE, status(device)).ino for device in range(5000)}
    assert len(shown) == 5000
    assert max(shown) < 1 << 63


def test_the_numbers_are_the_same_each_time() -> None:
    first, second = Guise(0), Guise(0)
    first.learn(1, b"one")
    second.learn(9, b"another")
    second.learn(2, b"one")
    assert first.tag(1) == second.tag(2) != second.tag(9)


def test_more_devices_than_there_are_tags() -> None:
    guise = Guise(0)
    for device in range(1, (1 << 15) + 10):
        guise.learn(device, device.to_bytes(8, "little"))
    assert guise.tag((1 << 15) + 9) >= 0


def test_what_a_mount_forbids() -> None:
    guise = Guise(5)
    guise.forbid(THERE, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)
    assert guise.of(THERE, status(5)).mode == stat.S_IFREG | 0o755
    assert guise.of(THERE, status(5)).rdev == os.makedev(1, 3)
    assert guise.of(HERE, status(5)).mode == stat.S_IFREG | 0o6755
    # A directory's set-group-id bit says whose new files are.
    assert guise.of(THERE, status(5, mode=stat.S_IFDIR | 0o2755)).mode == stat.S_IFDIR | 0o2755
    assert guise.hides(THERE + b"node", CAPABILITIES)
    assert not guise.hides(HERE + b"node", CAPABILITIES)
    assert not guise.hides(THERE + b"node", b"user.x")
    guise.forbid(THERE, MOUNT_ATTR_NODEV)
    assert guise.of(THERE, status(5)) == (7, stat.S_IFREG | 0o6755, 0)
    guise.forbid(THERE, 0)
    assert guise.of(THERE, status(5)) == guise.of(HERE, status(5))
    assert not guise.hides(THERE + b"node", CAPABILITIES)
