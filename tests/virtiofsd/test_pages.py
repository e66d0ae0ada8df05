"""In a guest: what is read at an event is new, also by who has the file open or mapped.

The host writes the same number of bytes each time, and keeps the file open: nothing but the
MODIFY tells of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.absent import NoGuest
from tests.guest.conftest import do_without
from tests.guest.initramfs import Image, image
from tests.guest.machine import Machine, Share
from tests.guest.programs import Program
from tests.guest.stage import AGENT, MNT, PYTHON
from tests.guest.virtiofsd import farwatch_virtiofsd
from tests.stage import farwatch_command, farwatch_environment

pytestmark = [pytest.mark.root, pytest.mark.guest]

READER = """
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
directory, name = os.path.split(sys.argv[1])
fd = os.open(sys.argv[1], os.O_RDWR)
content = mmap.mmap(fd, 4096, prot=mmap.PROT_READ)
watch = libc.inotify_init1(0)
libc.inotify_add_watch(watch, directory.encode(), 2)
content[:16], os.pread(fd, 16, 0)
print("ready", flush=True)
while True:
    os.read(watch, 4096)
    mapped = content[:16]
    print(mapped.decode(), os.pread(fd, 16, 0).decode(), os.fstat(fd).st_size, flush=True)
    content[:16]
"""
ROUNDS = 12
SECONDS = 20.0
SIZE = 4096


def line(program: Program) -> list[str]:
    found = program.line(SECONDS)
    assert found is not None, program.errors()
    return found.decode().split()


@pytest.fixture(scope="module")
def guest_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    try:
        yield image("6.12", tmp_path_factory.mktemp("image"))
    except NoGuest as absent:
        do_without(absent)


@pytest.mark.parametrize("mode", ["never", "auto", "always", "metadata"])
def test_pages_are_new_at_an_event(guest_image: Image, tmp_path: Path, mode: str) -> None:
    export = tmp_path / "export"
    export.mkdir()
    file = export / "file"
    file.write_bytes(b"%016d" % 0 + bytes(SIZE - 16))
    command = farwatch_command("virtiofsd", "--cache", mode)
    daemon = farwatch_virtiofsd(command, farwatch_environment(), export)
    try:
        with Machine(guest_image, [Share("shared", daemon)]) as machine:
            machine.mount("shared", MNT)
            machine.put("/reader.py", READER.encode())
            with (
                machine.start([*AGENT, MNT]),
                machine.start([PYTHON, "/reader.py", f"{MNT}/file"]) as reader,
            ):
                assert line(reader) == ["ready"]
                with file.open("r+b", buffering=0) as writer:
                    for number in range(1, ROUNDS):
                        os.pwrite(writer.fileno(), b"%016d" % number, 0)
                        assert line(reader) == [f"{number:016}", f"{number:016}", str(SIZE)]
    finally:
        daemon.close()
