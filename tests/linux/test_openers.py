"""How another process has a file open."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farwatch.linux.openers import access_mode

_HOLDER = "import os,sys; fd=os.open(sys.argv[1], int(sys.argv[2])); print(flush=True); input()"


@contextmanager
def holding(path: Path, flags: int) -> Iterator[int]:
    """A process that has a file open; its id."""
    command = [sys.executable, "-c", _HOLDER, str(path), str(flags)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.communicate("\n")


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY | os.O_APPEND, os.O_RDWR])
def test_the_mode_is_told(tmp_path: Path, flags: int) -> None:
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "b").write_bytes(b"")
    status, other = (tmp_path / "a").stat(), (tmp_path / "b").stat()
    with holding(tmp_path / "a", flags) as process:
        assert access_mode(process, status.st_dev, status.st_ino) == flags & os.O_ACCMODE
        assert access_mode(process, other.st_dev, other.st_ino) is None
        assert access_mode(process, status.st_dev + 1, status.st_ino) is None


def test_a_pin_is_no_open(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    status = (tmp_path / "a").stat()
    with holding(tmp_path / "a", os.O_PATH) as process:
        assert access_mode(process, status.st_dev, status.st_ino) is None


def test_a_process_that_is_gone() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert access_mode(process.pid, 1, 1) is None
