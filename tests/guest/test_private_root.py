"""A private root where the root is the kernel's first, which cannot be pivoted away from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest import initramfs
from tests.guest.conftest import Images
from tests.guest.machine import Machine, Share
from tests.guest.stage import PYTHON
from tests.guest.virtiofsd import c_virtiofsd

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.long]

ENTER = """
import os, sys, threading, traceback
from farwatch.linux import mounts
from farwatch.linux.files import AT_FDCWD
from farwatch.linux.namespace import enter_private_root

def table():
    with open("/proc/self/mountinfo", "rb") as file:
        return sorted((m.mount_point.decode(), m.fstype.decode(), m.optional)
                      for m in mounts.parse_mountinfo(file.read()))

clone = mounts.open_tree(AT_FDCWD, b"/mnt", mounts.OPEN_TREE_CLONE)
enter_private_root({"/export/deep": clone})
"""
SEES = """
os.close(clone)
assert table() == [
    ("/", "tmpfs", ()), ("/export/deep", "virtiofs", ()), ("/proc", "proc", ())
], table()
assert sorted(os.listdir("/")) == ["export", "proc"]
assert os.getcwd() == "/"
assert os.listdir("/..") == os.listdir("/")
assert open("/export/deep/file").read() == "text"
try:
    os.mkdir("/new")
except OSError as error:
    assert error.errno == 30, error  # EROFS
threading.Thread(target=lambda: print("thread", flush=True)).start()
"""
STAYS = """
os.close(clone)
print("entered", flush=True)
sys.stdin.read()
print([row for row in table() if row[0].startswith("/export")], flush=True)
"""


@pytest.fixture(params=["6.12", "6.1"], scope="module")
def machine(
    request: pytest.FixtureRequest, images: Images, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """A guest with a directory of the host on /mnt, and a mount below it."""
    export: Path = tmp_path_factory.mktemp("export")
    (export / "file").write_text("text")
    (export / "below").mkdir()
    image, daemon = images.of(request.param), c_virtiofsd(export)
    try:
        with Machine(image, [Share("shared", daemon)]) as made:
            made.mount("shared", "/mnt")
            assert made.check(["stat", "-f", "-c", "%T", "/"]).strip() in ("ramfs", "tmpfs")
            yield made
    finally:
        daemon.close()


def python(program: str) -> list[str]:
    path = f"PYTHONPATH={initramfs.AGENT}"
    return ["env", path, PYTHON, "-c", program]


def test_nothing_else_remains(machine: Machine) -> None:
    before = machine.check(["cat", "/proc/mounts"])
    assert machine.check(python(ENTER + SEES)) == "thread\n"
    assert machine.check(["cat", "/proc/mounts"]) == before


def test_the_guest_may_unmount_meanwhile(machine: Machine) -> None:
    machine.check(["mount", "-t", "tmpfs", "tmpfs", "/mnt/below"])
    with machine.start(python(ENTER + STAYS)) as inside:
        assert inside.line(20) == b"entered\n"
        # Neither is lazy: EBUSY if anybody held it.
        machine.check(["umount", "/mnt/below"])
        machine.check(["umount", "/mnt"])
        machine.check(["mount", "-t", "tmpfs", "tmpfs", "/mnt"])
        machine.check(["umount", "/mnt"])
        inside.end_input()
        done = inside.wait()
    assert done == (0, b"[('/export/deep', 'virtiofs', ())]\n", b"")
    machine.mount("shared", "/mnt")
