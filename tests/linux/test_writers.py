"""What /proc says of who has a file open for writing, of real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farwatch.linux.writers import Held, held_by, processes, writers_in

_HOLD = """
import ctypes, os, sys
how, path = sys.argv[1:]
fd = os.open(path, os.O_RDONLY if how == "reads" else os.O_PATH if how == "paths" else os.O_RDWR)
if how.startswith("maps"):
    # Python's own mmap keeps a descriptor.  PROT_READ | PROT_WRITE; MAP_PRIVATE or MAP_SHARED.
    mmap = ctypes.CDLL(None, use_errno=True).mmap
    mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    mmap.restype = ctypes.c_void_p
    assert mmap(None, 4096, 3, 2 if "privately" in how else 1, fd, 0) != 2**64 - 1
    os.close(fd)
print(flush=True)
input()
"""


@contextmanager
def holding(how: str, path: Path) -> Iterator[int]:
    """A process that has a file open; its id."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, how, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "\n"
            yield process.pid
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("how", "held"),
    [
        ("writes", Held.WRITING),
        ("maps", Held.WRITING),
        ("reads", Held.READING),
        ("paths", Held.NOT),
        ("maps privately", Held.NOT),
    ],
)
def test_how_a_process_has_a_file_open(tmp_path: Path, how: str, held: Held) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(4096))
    status = path.stat()
    other = tmp_path / "other"
    other.write_bytes(bytes(4096))
    with holding(how, path) as process:
        assert process in processes()
        assert held_by(process, status.st_dev, status.st_ino) is held
        assert held_by(process, status.st_dev, other.stat().st_ino) is Held.NOT
    assert held_by(process, status.st_dev, status.st_ino) is Held.NOT


@pytest.mark.root
@pytest.mark.parametrize("how", ["writes", "maps"])
def test_what_a_process_writes(tmp_path: Path, how: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(4096))
    with holding(how, path) as process:
        found = list(writers_in(process, path.stat().st_dev))
        assert {writer.process for writer in found} == {process}
        # What it has inherited may be on that file system as well.
        links = [writer.link for writer in found if os.path.samefile(writer.link, path)]
        assert len(links) == 1
        assert ("map_files" in links[0]) is (how == "maps")


def test_this_process_is_not_among_them() -> None:
    assert os.getpid() not in processes()
