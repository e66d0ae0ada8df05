"""Parts of the agent that need no mount: handles, kept descriptors, steps that are refused."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farwatch.abi.control import NO_UID, ROOT_ID, VERSION, Hello
from farwatch.abi.steps import Op, Step
from farwatch.agent import marks
from farwatch.agent.channel import Channel
from farwatch.agent.endings import NotServed
from farwatch.agent.kept import Kept
from farwatch.agent.replayer import Replayer
from farwatch.linux.fdinfo import decode_fuse


@given(st.integers(0, (1 << 64) - 1), st.integers(0, 0xFFFFFFFF))
def test_a_handle_is_what_fdinfo_shows(node: int, generation: int) -> None:
    packed = marks._HANDLE.pack(12, marks._HANDLE_TYPE, node >> 32, node & 0xFFFFFFFF, generation)
    assert decode_fuse(packed) == (node, generation)


def test_a_handle_of_a_real_kernel() -> None:
    # proc_pid_fdinfo(5) of an inotify watch on a FUSE directory, Linux 6.18:
    # fhandle-bytes:c fhandle-type:81 f_handle:000000000200000000000000
    data = struct.pack("<Ii", 0xC, 0x81) + bytes.fromhex("000000000200000000000000")
    assert decode_fuse(data) == (2, 0)


def descriptor() -> int:
    return os.open("/dev/null", os.O_RDONLY)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_what_is_kept_is_closed_once() -> None:
    kept = Kept()
    first, second, third = descriptor(), descriptor(), descriptor()
    kept.put(1, first)
    kept.put(2, second)
    kept.put(1, third)
    assert [is_open(fd) for fd in (first, second, third)] == [False, True, True]
    assert kept.get(1) == third
    kept.drop(2)
    assert not is_open(second)
    for act in (kept.get, kept.drop):
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            act(2)
    kept.close()
    assert not is_open(third)
    kept.close()


def test_a_directory_of_another_file_system_is_not_served(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(NotServed, match="its server is not farwatch"):
            Channel(fd).hello()
    finally:
        os.close(fd)


def step(op: Op, name: bytes) -> Step:
    return Step(op=op, directory=ROOT_ID, name=name)


class Unmarked:
    """Marks of an agent on a local file system, where nobody looks for any."""

    resolve = 0

    def take(self) -> None: ...

    def on(self, sequence: int) -> None: ...

    def open_directory(self, node: int) -> int:
        raise OSError(errno.ESTALE, str(node))

    def drop(self) -> None: ...


@contextmanager
def replayer_on(directory: Path) -> Iterator[Replayer]:
    (directory / "hidden").mkdir()
    root = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    made = Replayer(
        root, Hello(VERSION, NO_UID, 1, b"hidden"), Unmarked(), Kept(), Kept(), lambda: None
    )
    try:
        yield made
    finally:
        made.close()
        os.close(root)


class Kernel:
    """Refuses the removal of what is there, so many times; and what waits, does not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, call: str, refusals: int) -> None:
        self.tries = 0
        self.waited = 0.0
        real = getattr(os, call)

        def remove(name: bytes, *, dir_fd: int) -> None:
            self.tries += 1
            if self.tries <= refusals:
                raise OSError(errno.ESTALE, "by somebody at work where it was")
            real(name, dir_fd=dir_fd)

        def sleep(seconds: float) -> None:
            self.waited += seconds

        monkeypatch.setattr(os, call, remove)
        monkeypatch.setattr("farwatch.agent.replayer.time.sleep", sleep)


def test_somebody_is_at_work_where_a_directory_is_that_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "d").mkdir()
    kernel = Kernel(monkeypatch, "rmdir", refusals=7)
    with replayer_on(tmp_path) as replayer:
        assert replayer.perform(step(Op.RMDIR, b"d"), 1) == 0
    assert not (tmp_path / "d").exists()
    assert kernel.waited >= 0.03


@pytest.mark.parametrize(("call", "op"), [("rmdir", Op.RMDIR), ("unlink", Op.UNLINK)])
def test_a_step_is_not_tried_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, op: Op
) -> None:
    kernel = Kernel(monkeypatch, call, refusals=1000)
    with replayer_on(tmp_path) as replayer:
        assert replayer.perform(step(op, b"d"), 1) == errno.ESTALE
    assert kernel.tries < 20
    # Nobody but a directory's removal waits: agents that are killed all the time would get
    # nowhere.
    assert kernel.waited < 0.1 if op == Op.RMDIR else not kernel.waited
