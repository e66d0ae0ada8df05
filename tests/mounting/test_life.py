"""A mount from its making to its end, whichever way it ends."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from farwatch.events import Mask
from tests.mounting.mounted import SECONDS, Area, Ear, is_mounted, wait_until

pytestmark = pytest.mark.root

CREATE, DELETE = Mask.CREATE, Mask.DELETE


def test_daemon_returns_when_events_are_delivered(area: Area) -> None:
    for number in range(3):
        result = area.run("mount", area.src, area.mnt, "--daemon")
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
        with Ear(area.mnt) as ear:
            (area.src / f"new{number}").touch()
            ear.hear((CREATE, f"new{number}"))
        result = area.run("unmount", area.mnt)
        assert (result.returncode, result.stderr) == (0, "")
        area.assert_nothing_left()


def test_daemon_lets_go_of_the_terminal(area: Area) -> None:
    """Whoever reads its output to the end is not kept waiting, and its directory not held."""
    start = area.home / "start"
    start.mkdir()
    result = area.run("mount", "../src", "../mnt", "--daemon", cwd=str(start))
    assert result.returncode == 0
    start.rmdir()
    assert is_mounted(area.mnt)
    for pid in area.processes():
        assert os.readlink(f"/proc/{pid}/cwd") != str(start)
        assert os.getsid(pid) != os.getsid(0)
    subprocess.run(["umount", str(area.mnt)], check=True)
    area.assert_nothing_left()


def test_daemon_logs_where_it_is_told_to(area: Area) -> None:
    log = area.home / "log"
    assert area.run("mount", area.src, area.mnt, "--daemon", "--log-file", log).returncode == 0
    (agent,) = area.agents()
    os.kill(agent, signal.SIGKILL)
    wait_until(lambda: "the agent ended" in log.read_text(), "a line in the log")
    subprocess.run(["umount", str(area.mnt)], check=True)
    area.assert_nothing_left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unmounts(area: Area, number: signal.Signals) -> None:
    with area.mounted() as process:
        assert len(area.processes()) == 3
        process.send_signal(number)
        assert process.wait(SECONDS) == 0
        area.assert_nothing_left()
        assert area.said() == ""


@pytest.mark.parametrize(
    "command", [["umount"], ["fusermount3", "-u"], ["umount", "-l"], [sys.executable]],
    ids=["umount", "fusermount3 -u", "umount -l", "farwatch unmount"],
)  # fmt: skip
def test_unmounting_ends_everything(area: Area, command: list[str]) -> None:
    with area.mounted() as process:
        if command == [sys.executable]:
            result = area.run("unmount", area.mnt)
            assert (result.returncode, result.stderr) == (0, "")
        else:
            subprocess.run([*command, str(area.mnt)], check=True, capture_output=True)
        assert process.wait(SECONDS) == 0
        area.assert_nothing_left()
        assert area.said() == ""


def test_watchers_are_told_of_the_unmount(area: Area) -> None:
    with area.mounted() as process, Ear(area.mnt) as ear:
        process.terminate()
        ear.hear((Mask.UNMOUNT | Mask.ISDIR, ""), (Mask.IGNORED, ""))
        assert process.wait(SECONDS) == 0


def test_unmounted_during_a_flood_of_changes(area: Area) -> None:
    flood = "import os, sys\nwhile True:\n  open('f', 'w').close(); os.unlink('f')"
    with subprocess.Popen([sys.executable, "-c", flood], cwd=area.src) as busy:
        try:
            with area.mounted() as process, Ear(area.mnt) as ear:
                ear.hear_often((CREATE, "f"))
                process.terminate()
                assert process.wait(SECONDS) == 0
                area.assert_nothing_left()
        finally:
            busy.kill()


def test_a_killed_server_leaves_no_mount(area: Area) -> None:
    with area.mounted() as process:
        (server,) = area.servers(process.pid)
        os.kill(server, signal.SIGKILL)
        assert process.wait(SECONDS) == 1
        area.assert_nothing_left()
        said = area.said()
        assert "the server ended unexpectedly" in said
        assert "Traceback" not in said
        assert os.listdir(area.mnt) == []


def test_a_killed_server_with_a_process_in_the_mount(area: Area) -> None:
    (area.src / "f").write_text("x")
    with area.mounted() as process, (area.mnt / "f").open() as held:
        (server,) = area.servers(process.pid)
        os.kill(server, signal.SIGKILL)
        assert process.wait(SECONDS) == 1
        area.assert_nothing_left()
        wait_until(lambda: error_of(held.fileno()), "an error")
        assert error_of(held.fileno()) in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)


def error_of(fd: int) -> int | None:
    """Of what the kernel has not cached: attributes may be, for long."""
    try:
        os.fstatvfs(fd)
    except OSError as error:
        return error.errno
    return None


def test_a_killed_agent_is_replaced_and_nothing_is_lost(area: Area) -> None:
    with area.mounted() as process, Ear(area.mnt) as ear:
        (area.src / "before").touch()
        ear.hear((CREATE, "before"))
        (agent,) = area.agents()
        os.kill(agent, signal.SIGKILL)
        wait_until(lambda: agent not in area.agents(), "the agent's end")
        names = [f"meanwhile{number}" for number in range(50)]
        for name in names:
            (area.src / name).touch()
        (area.src / "before").unlink()
        ear.hear(*[(CREATE, name) for name in names], (DELETE, "before"))
        (second,) = area.agents()
        assert second != agent
        (area.src / "after").touch()
        ear.hear((CREATE, "after"))
        assert process.poll() is None
        process.terminate()
        assert process.wait(SECONDS) == 0
        area.assert_nothing_left()


def test_an_agent_that_is_killed_again_and_again(area: Area) -> None:
    """Nothing is lost, and nothing that exists is removed, wherever it is interrupted."""
    with area.mounted() as process, Ear(area.mnt) as ear:
        for turn in range(5):
            names = [f"{turn}-{number}" for number in range(40)]
            (agent,) = area.agents()
            for name in names[:20]:
                (area.src / name).touch()
            os.kill(agent, signal.SIGKILL)
            for name in names[20:]:
                (area.src / name).touch()
            for name in names[::2]:
                (area.src / name).unlink()
                (area.src / name).mkdir()
            wait_until(lambda: area.agents() not in ([], [agent]), "another agent")  # noqa: B023
            ear.hear((CREATE, names[-1]), (CREATE | Mask.ISDIR, names[-2]))
            for name in names:
                assert (area.src / name).exists()
                assert (area.mnt / name).is_dir() == (area.src / name).is_dir()
        process.terminate()
        assert process.wait(SECONDS) == 0
        area.assert_nothing_left()


def holder(path: Path) -> subprocess.Popen[bytes]:
    """A process whose working directory is there."""
    process = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        cwd=path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_a_signal_while_the_mount_is_in_use_detaches_it(area: Area) -> None:
    with area.mounted() as process, holder(area.mnt) as user:
        try:
            process.terminate()
            wait_until(lambda: not is_mounted(area.mnt), "the detaching")
            wait_until(lambda: "still in use" in area.said(), "a word about it")
            assert process.poll() is None
        finally:
            user.kill()
            user.wait()
        assert process.wait(SECONDS) == 0
        area.assert_nothing_left()
        assert area.said().count("\n") == 1


def test_a_second_signal_ends_a_mount_in_use(area: Area) -> None:
    with area.mounted() as process, holder(area.mnt) as user:
        try:
            process.terminate()
            wait_until(lambda: "still in use" in area.said(), "a word about it")
            process.terminate()
            assert process.wait(SECONDS) == 0
            area.assert_nothing_left()
        finally:
            user.kill()


def test_unmount_of_a_mount_in_use_leaves_it_working(area: Area) -> None:
    with area.mounted() as process, holder(area.mnt) as user:
        result = area.run("unmount", area.mnt)
        assert (result.returncode, result.stderr.count("\n")) == (1, 1)
        with Ear(area.mnt) as ear:
            (area.src / "x").touch()
            ear.hear((CREATE, "x"))
        user.kill()
        user.wait()
        process.terminate()
        assert process.wait(SECONDS) == 0


def test_the_source_is_removed_while_mounted(area: Area) -> None:
    with area.mounted() as process:
        area.src.rmdir()
        assert os.listdir(area.mnt) == []
        process.terminate()
        assert process.wait(SECONDS) == 0
        area.assert_nothing_left()
    area.src.mkdir()


def test_two_mounts_of_one_source(area: Area) -> None:
    """Each is remote to the other."""
    second = area.home / "second"
    second.mkdir()
    with area.mounted() as process:
        assert area.run("mount", area.src, second, "--daemon").returncode == 0
        try:
            with Ear(area.mnt) as first_ear, Ear(second) as second_ear:
                for directory, name in ((area.mnt, "a"), (second, "b"), (area.src, "c")):
                    (directory / name).touch()
                    for ear in (first_ear, second_ear):
                        ear.hear((CREATE, name))
                for ear in (first_ear, second_ear):
                    assert [name for mask, name in ear.heard if mask == CREATE] == ["a", "b", "c"]
        finally:
            subprocess.run(["umount", str(second)], check=True)
        process.terminate()
        assert process.wait(SECONDS) == 0
        area.assert_nothing_left()
