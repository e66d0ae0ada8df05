"""What needs no mount; the rest is tests/ordinary."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from farwatch.linux import fusermount

REFUSES = """#!/bin/sh
echo "/usr/bin/fusermount3: $4: some reason" >&2
echo "and more" >&2
exit 1
"""
BUSY = """#!/bin/sh
echo "fusermount3: failed to unmount $3: Device or resource busy" >&2
exit 1
"""


@pytest.mark.parametrize(
    ("value", "option"), [(b"/a", b"/a"), (b"/a,b", b"/a\\,b"), (b"/a\\,", b"/a\\\\\\,")]
)
def test_a_value_that_holds_commas(value: bytes, option: bytes) -> None:
    assert fusermount.escaped(value) == option


def put(program: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = directory / "fusermount3"
    path.write_text(program)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")


def test_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(REFUSES, tmp_path, monkeypatch)
    with pytest.raises(fusermount.NotMounted, match=r"^/mnt: some reason$"):
        fusermount.mount(b"/mnt", [b"ro"])
    with pytest.raises(PermissionError, match="some reason"):
        fusermount.unmount(b"/mnt")


def test_it_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(BUSY, tmp_path, monkeypatch)
    with pytest.raises(OSError, match="busy") as found:
        fusermount.unmount(b"/mnt")
    assert found.value.errno == errno.EBUSY


def test_it_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusermount, "program", lambda: None)
    with pytest.raises(fusermount.NotMounted, match="install the package fuse3"):
        fusermount.mount(b"/mnt", [])
    with pytest.raises(PermissionError, match="install the package fuse3"):
        fusermount.unmount(b"/mnt")
