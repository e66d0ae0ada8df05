"""How an agent comes to directories by path, and to nothing outside."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from farwatch.abi.control import HIDDEN_ID, NO_UID, ROOT_ID, Hello
from farwatch.agent.marks import ByFsuid, ByThread, marks_of
from farwatch.agent.paths import Paths

HIDDEN = b".hidden"


class Places:
    """What the server says."""

    def __init__(self, answers: dict[int, tuple[int, bytes]]) -> None:
        self._answers = answers

    def place(self, node: int) -> tuple[int, bytes]:
        return self._answers[node]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    for path in ("a/b/c", ".hidden/n7", "outside"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "away").symlink_to("/")
    (tmp_path / "file").touch()
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def opened(root: int, answers: dict[int, tuple[int, bytes]], node: int) -> str:
    paths = Paths(root, HIDDEN)
    paths._channel = Places(answers)  # type: ignore[assignment]
    fd = paths.open(node)
    try:
        return os.path.relpath(
            os.readlink(f"/proc/self/fd/{fd}"), os.readlink(f"/proc/self/fd/{root}")
        )
    finally:
        os.close(fd)


def test_by_what_the_server_says(root: int) -> None:
    assert isinstance(marks_of(root, Hello(1, NO_UID, 0, HIDDEN)), ByThread)
    assert isinstance(marks_of(root, Hello(1, 0xFA520000, 0, HIDDEN)), ByFsuid)


def test_the_path_is_walked(root: int) -> None:
    assert opened(root, {20: (ROOT_ID, b"a/b")}, 20) == "a/b"


def test_in_parts(root: int) -> None:
    answers = {20: (21, b"c"), 21: (22, b"b"), 22: (ROOT_ID, b"a")}
    assert opened(root, answers, 20) == "a/b/c"


def test_through_the_hidden_directory(root: int) -> None:
    assert opened(root, {7: (HIDDEN_ID, b"n7")}, 7) == ".hidden/n7"


@pytest.mark.parametrize(
    ("path", "number"),
    [
        (b"link", errno.ELOOP),
        (b"link/b", errno.ELOOP),
        (b"away", errno.ELOOP),
        (b"a/../outside/../..", errno.EXDEV),
        (b"/etc", errno.EXDEV),
        (b"file", errno.ENOTDIR),
        (b"none", errno.ENOENT),
    ],
)
def test_nowhere_else(root: int, path: bytes, number: int) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match=r"\]") as found:
        opened(root, {20: (21, path), 21: (ROOT_ID, b".")}, 20)
    assert found.value.errno == number
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_not_for_ever(root: int) -> None:
    with pytest.raises(OSError, match="too long"):
        opened(root, {20: (20, b"a")}, 20)
