"""A server that dies: nothing hangs, everything is cleaned up, and its last words are kept."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from farwatch.events import Mask
from tests.faults.faulty import FaultyArea, Listener, frozen
from tests.mounting.mounted import SECONDS, is_mounted, wait_until

pytestmark = pytest.mark.root

NOT_CONNECTED = (errno.ENOTCONN, errno.ECONNABORTED)


def orphan(area: FaultyArea) -> None:
    """Kills the supervisor and the server: the mount is there, and nobody answers."""
    result = area.run("mount", area.src, area.mnt, "--daemon", "--log-file", area.home / "log")
    assert result.returncode == 0, result.stderr
    agents = area.agents()
    others = [pid for pid in area.processes() if pid not in agents]
    for pid in others:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not area.processes(), "that the agent ends as well")
    assert is_mounted(area.mnt)


def test_the_mount_answers_not_connected(area: FaultyArea) -> None:
    orphan(area)
    with pytest.raises(OSError) as refused:  # noqa: PT011 - by its errno
        os.listdir(area.mnt)
    assert refused.value.errno in NOT_CONNECTED
    result = area.run("unmount", area.mnt)
    assert (result.returncode, result.stderr) == (0, "")
    area.assert_nothing_left()


@pytest.mark.parametrize("options", [(), ("--daemon",)], ids=["foreground", "daemon"])
def test_mounting_again_takes_it_away(area: FaultyArea, options: tuple[str, ...]) -> None:
    orphan(area)
    if options:
        assert area.run("mount", area.src, area.mnt, *options).returncode == 0
        assert area.run("unmount", area.mnt).returncode == 0
    else:
        with area.mounted() as process, Listener(area.mnt) as listener:
            (area.src / "f").touch()
            listener.hear_of(Mask.CREATE, "f")
            assert "the mount of a server that has died" in area.said()
            process.terminate()
            assert process.wait(SECONDS) == 0
    area.assert_nothing_left()


def test_somebody_elses_dead_mount_is_left_alone(area: FaultyArea) -> None:
    """What is there is not farwatch's: it says so, and touches nothing."""
    program = (
        "import os, sys; from farwatch.linux.mounts import mount; fd = os.open('/dev/fuse', 2);"
        "mount(b'x', sys.argv[1].encode(), b'fuse.other', 0,"
        " b'fd=%d,rootmode=40000,user_id=0,group_id=0' % fd)"
    )
    subprocess.run([sys.executable, "-c", program, str(area.mnt)], check=True, env=area.environment)
    try:
        result = area.run("mount", area.src, area.mnt)
        assert result.returncode == 1
        assert "a dead mount is in the way" in result.stderr
        assert is_mounted(area.mnt)
    finally:
        subprocess.run(["umount", "-l", str(area.mnt)], check=True)


def test_whoever_waits_for_it_is_told(area: FaultyArea) -> None:
    """A request that it had before it was killed does not hang, nor one that comes after."""
    (area.src / "f").write_text("x")
    with area.mounted() as process:
        (server,) = area.servers(process.pid)
        with frozen(server):
            errors: list[int | None] = []
            asking = threading.Thread(target=lambda: errors.append(error_of(area.mnt / "f")))
            asking.start()
            wait_until(lambda: asking.is_alive() and is_waiting(asking), "a request on its way")
            os.kill(server, signal.SIGKILL)
            asking.join(SECONDS)
            assert not asking.is_alive()
        assert errors[0] in NOT_CONNECTED
        assert process.wait(SECONDS) == 1
        assert "the server ended unexpectedly (killed by SIGKILL)" in area.said()
    area.assert_nothing_left()


def error_of(path: Path) -> int | None:
    try:
        path.stat()
    except OSError as error:
        return error.errno
    return None


def is_waiting(thread: threading.Thread) -> bool:
    """In the kernel, for an answer (proc_pid_wchan(5))."""
    return "request_wait" in Path(f"/proc/self/task/{thread.native_id}/wchan").read_text()


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGSEGV,
        pytest.param(signal.SIGABRT, marks=pytest.mark.long),
        pytest.param(signal.SIGBUS, marks=pytest.mark.long),
    ],
)
def test_its_last_words_are_in_the_log(area: FaultyArea, number: signal.Signals) -> None:
    log = area.home / "log"
    result = area.run("mount", area.src, area.mnt, "--daemon", "--log-file", log)
    assert result.returncode == 0
    agents = area.agents()
    # The server is the child of the other.
    others = [pid for pid in area.processes() if pid not in agents]
    parents = {pid: int(status_of(pid)["PPid"]) for pid in others}
    (server,) = [pid for pid in others if parents[pid] in others]
    os.kill(server, number)
    wait_until(lambda: "ended unexpectedly" in log.read_text(), "a word of its end")
    area.assert_nothing_left()
    words = log.read_text()
    assert "Fatal Python error" in words
    assert "in serve" in words
    assert f"killed by {number.name}" in words


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)
