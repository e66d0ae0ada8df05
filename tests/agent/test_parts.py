"""Parts of the agent that need no mount: handles, kept descriptors, the command."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farwatch.agent import replayer
from farwatch.agent.channel import Channel, NotServed
from farwatch.agent.kept import Kept
from farwatch.linux.fdinfo import decode_fuse
from tests.stage import farwatch_environment


@given(st.integers(0, (1 << 64) - 1), st.integers(0, 0xFFFFFFFF))
def test_a_handle_is_what_fdinfo_shows(node: int, generation: int) -> None:
    packed = replayer._HANDLE.pack(
        12, replayer._HANDLE_TYPE, node >> 32, node & 0xFFFFFFFF, generation
    )
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


def agent(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "farwatch.agent", *map(str, arguments)],
        env=farwatch_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("arguments", [(), ("a", "b")])
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    result = agent(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1


@pytest.mark.root
@pytest.mark.parametrize("path", ["/proc", "{}", "{}/none"])
def test_what_it_cannot_serve(tmp_path: Path, path: str) -> None:
    result = agent(path.format(tmp_path))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"farwatch agent: {path.format(tmp_path)}: ")
    assert result.stderr.count("\n") == 1


def test_it_needs_nothing_but_the_standard_library() -> None:
    """It runs in guests that have only Python."""
    probe = (
        "import sys, farwatch.agent.agent, farwatch.agent.__main__\n"
        "mine = ('farwatch',)\n"
        "bad = {name.partition('.')[0] for name in sys.modules}\n"
        "bad -= set(sys.stdlib_module_names) | set(mine) | {'__main__'}\n"
        "layers = {name.split('.')[1] for name in sys.modules if name.startswith('farwatch.')}\n"
        "assert layers <= {'abi', 'agent', 'linux', 'events'}, layers\n"
        "assert not bad, bad\n"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {_SRC!r})\n{probe}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 0, result.stderr


_SRC = str(Path(replayer.__file__).resolve().parents[2])
