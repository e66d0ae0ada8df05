"""``farwatch mount`` and ``farwatch unmount`` as an ordinary user: no root anywhere."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from farwatch.linux.mounts import parse_mountinfo
from tests.mounting.mounted import command_line, is_mounted, wait_until
from tests.ordinary.area import OrdinaryArea
from tests.ordinary.user import GID, UID, as_user

pytestmark = pytest.mark.root
GUARD = b"farwatch.mounting.guard"
MOUNT = """
import os, sys
from farwatch.linux.mounts import mount
mount(b"none", os.fsencode(sys.argv[1]), b"tmpfs")
"""
UMOUNT = """
import os, sys
from farwatch.linux.mounts import umount
umount(os.fsencode(sys.argv[1]))
"""
MOUNT_ID = re.compile(r"^mnt_id:\s*(\d+)$", re.MULTILINE)


def uids_of(pid: int) -> set[int]:
    """Every user id of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, ids = line.partition(":")
        if name == "Uid":
            return set(map(int, ids.split()))
    raise AssertionError(line)


def test_changes_of_the_users_own_are_heard(area: OrdinaryArea) -> None:
    (area.src / "d").mkdir()
    os.chown(area.src / "d", UID, GID)
    with area.mounted() as process, area.listening(area.mnt / "d") as listener:
        assert all(uids_of(pid) == {UID} for pid in area.processes())
        shell = "cd {}/d && echo 1 > x && echo 2 >> x && mv x y && chmod 600 y && rm y"
        result = area.run_as_user(["sh", "-c", shell.format(area.src)])
        assert result.returncode == 0, result.stderr
        for kind, name in (
            ("CREATE", "x"), ("MODIFY", "x"), ("MOVED_FROM", "x"), ("MOVED_TO", "y"),
            ("ATTRIB", "y"), ("DELETE", "y"),
        ):  # fmt: skip
            listener.hear(kind, name)
        process.terminate()
        assert process.wait() == 0
    area.assert_nothing_left()


def test_what_others_do_to_others_files_is_heard(area: OrdinaryArea) -> None:
    """Root's files in a directory of root's: the user may look, and no more."""
    directory = area.src / "roots"
    directory.mkdir(mode=0o755)
    (directory / "old").write_text("old")
    with area.mounted() as process, area.listening(area.mnt / "roots") as listener:
        (directory / "new").write_text("new")
        listener.hear("CREATE", "new")
        with (directory / "old").open("a") as file:
            file.write("er")
        listener.hear("MODIFY", "old")
        (directory / "old").chmod(0o600)
        listener.hear("ATTRIB", "old")
        (directory / "new").rename(directory / "newer")
        listener.hear("MOVED_TO", "newer")
        (directory / "newer").unlink()
        listener.hear("DELETE", "newer")
        denied = area.run_as_user(["touch", str(area.mnt / "roots" / "mine")])
        assert "Permission denied" in denied.stderr
        denied = area.run_as_user(["cat", str(area.mnt / "roots" / "old")])
        assert "Permission denied" in denied.stderr
        process.terminate()
        assert process.wait() == 0
    assert sorted(os.listdir(directory)) == ["old"]
    area.assert_nothing_left()


@pytest.mark.long
def test_what_may_not_be_replayed_is_seen_when_asked_for(area: OrdinaryArea) -> None:
    """In a sticky directory only the owner of a file may remove it: of this no event comes."""
    directory = area.src / "sticky"
    directory.mkdir()
    directory.chmod(0o1777)
    (directory / "roots").write_text("x")
    with area.mounted(), area.listening(area.mnt / "sticky") as listener:
        listing = ["ls", str(area.mnt / "sticky")]
        assert area.run_as_user(listing).stdout == "roots\n"
        (directory / "roots").rename(directory / "renamed")
        (directory / "renamed").unlink()
        (directory / "new").touch()
        listener.hear("CREATE", "new")
        wait_until(lambda: area.run_as_user(listing).stdout == "new\n", "what is there")
        assert area.run_as_user(["stat", str(area.mnt / "sticky" / "roots")]).returncode != 0
    assert os.listdir(directory) == ["new"]


@pytest.mark.long
def test_nobody_else_may_use_it(area: OrdinaryArea) -> None:
    with area.mounted():
        with pytest.raises(PermissionError):
            os.listdir(area.mnt)
        other = ["setpriv", "--reuid=2", "--regid=2", "--clear-groups", "ls", str(area.mnt)]
        result = subprocess.run(other, capture_output=True, text=True, check=False)
        assert "Permission denied" in result.stderr


def test_what_it_cannot_do_is_said_once(area: OrdinaryArea) -> None:
    with area.mounted():
        said = area.said()
    assert said.count("as an ordinary user") == 1
    assert said.count("\n") == 1, said


@pytest.mark.parametrize(
    "how",
    [
        "unmount",
        "fusermount3",
        pytest.param("lazy", marks=pytest.mark.long),
        pytest.param("interrupt", marks=pytest.mark.long),
    ],
)
def test_its_ends(area: OrdinaryArea, how: str) -> None:
    with area.mounted() as process:
        (area.src / "x").write_text("x")
        if how == "interrupt":
            process.send_signal(signal.SIGINT)
        elif how == "fusermount3":
            # The agent has a clone of the mount, and does not keep it busy.
            result = area.run_as_user(["fusermount3", "-u", str(area.mnt)])
            assert result.returncode == 0, result.stderr
        else:
            options = ["--lazy"] if how == "lazy" else []
            result = area.run("unmount", *options, area.mnt)
            assert result.returncode == 0, result.stderr
        assert process.wait(20) == 0
    area.assert_nothing_left()


@pytest.mark.long
def test_a_mount_in_use_is_not_taken_away(area: OrdinaryArea) -> None:
    with area.mounted() as process:
        command = as_user(["sh", "-c", f"cd {area.mnt} && echo in && exec sleep 1000"])
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as user:
            try:
                assert user.stdout is not None
                assert user.stdout.readline() == "in\n"
                result = area.run("unmount", area.mnt)
                assert result.returncode == 1
                assert "in use by sleep" in result.stderr
                assert result.stderr.count("\n") == 1
                assert is_mounted(area.mnt)
            finally:
                user.kill()
        assert area.run("unmount", area.mnt).returncode == 0
        assert process.wait(20) == 0
    area.assert_nothing_left()


@pytest.mark.long
def test_in_the_background(area: OrdinaryArea) -> None:
    log = area.home / "log"
    result = area.run("mount", area.src, area.mnt, "--daemon", "--log-file", log)
    assert (result.returncode, result.stderr) == (0, "")
    assert is_mounted(area.mnt)
    assert "as an ordinary user" in log.read_text()
    result = area.run("unmount", area.mnt)
    assert result.returncode == 0, result.stderr
    area.assert_nothing_left()


def test_an_agent_that_dies_is_replaced_and_nothing_is_lost(area: OrdinaryArea) -> None:
    with area.mounted() as process, area.listening(area.mnt) as listener:
        (agent,) = area.agents()
        os.kill(agent, signal.SIGSTOP)
        for number in range(50):
            (area.src / f"x{number}").touch()
        os.kill(agent, signal.SIGKILL)
        (area.src / "last").touch()
        listener.hear("CREATE", "x0")
        (area.src / "once more").touch()
        listener.hear("CREATE", "once more")
        assert len(list(area.src.iterdir())) == 52
        process.terminate()
        assert process.wait(20) == 0
    area.assert_nothing_left()


@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.long)])
def test_replays_never_become_real_while_agents_die(area: OrdinaryArea, rounds: int) -> None:
    """Names are removed and made anew while agents are killed in the middle of their steps."""
    names = [f"f{number}" for number in range(200)]
    for name in names:
        (area.src / name).write_text("first")
    with area.mounted() as process, area.listening(area.mnt) as listener:
        area.run_as_user(["ls", "-l", str(area.mnt)])
        for round_ in range(rounds):
            before = area.agents()
            for name in names:
                (area.src / name).unlink()
                (area.src / name).write_text(f"precious {round_}")
            for agent in before:
                os.kill(agent, signal.SIGKILL)
            wait_for_others(area, before)
        (area.src / "end").touch()
        listener.hear("CREATE", "end")
        for name in names:
            assert (area.src / name).read_text() == f"precious {rounds - 1}"
        process.terminate()
        assert process.wait(20) == 0
    area.assert_nothing_left()


def wait_for_others(area: OrdinaryArea, before: list[int]) -> None:
    wait_until(lambda: set(area.agents()) - set(before), "another agent")


def test_a_server_that_dies_leaves_nothing(area: OrdinaryArea) -> None:
    with area.mounted() as process:
        (server,) = area.servers(process.pid)
        os.kill(server, signal.SIGKILL)
        assert process.wait(20) == 1
        assert "Traceback" not in area.said()
    area.assert_nothing_left()


def test_auto_unmount(area: OrdinaryArea) -> None:
    """Supervisor and server are both killed."""
    with area.mounted("-o", "auto_unmount") as process:
        (server,) = (pid for pid in area.servers(process.pid) if GUARD not in command_line(pid))
        for pid in (process.pid, server):
            os.kill(pid, signal.SIGKILL)
        process.wait()
        wait_until(lambda: not is_mounted(area.mnt), "unmounted")
        wait_until(lambda: not area.agents(), "the agent's end")


# Without a clone of the mount -------------------------------------------------------------------


def mounts_of(pid: int) -> set[int]:
    """The ids of the mounts that a process has files open in."""
    found = set()
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):
            found |= {int(number) for number in MOUNT_ID.findall(entry.read_text())}
    return found


def mount_id(path: Path) -> int:
    entries = parse_mountinfo(Path("/proc/self/mountinfo").read_bytes())
    return next(entry.mount_id for entry in entries if entry.mount_point == os.fsencode(path))


@contextmanager
def mounted_below(area: OrdinaryArea, path: Path) -> Iterator[None]:
    """A tmpfs of the user's, who for that has the capability that it takes."""
    privileged = ["--inh-caps=+sys_admin", "--ambient-caps=+sys_admin"]
    for program in (MOUNT, UMOUNT):
        setpriv, *rest = as_user([area.python, "-c", program, str(path)])
        subprocess.run([setpriv, *privileged, *rest], env=area.environment, cwd="/", check=True)
        if program is MOUNT:
            yield


def test_in_the_mount_itself(area: OrdinaryArea) -> None:
    """Something is mounted below, so an agent that is started then cannot clone it.

    It reaches nothing in there; and it lets go of the mount when that is to be unmounted.
    """
    sub = area.mnt / "sub"
    (area.src / "sub").mkdir()
    os.chown(area.src / "sub", UID, GID)
    with area.mounted() as process:
        (agent,) = area.agents()
        assert mount_id(area.mnt) not in mounts_of(agent)
        with mounted_below(area, sub):
            os.kill(agent, signal.SIGKILL)
            wait_until(lambda: area.agents() not in ([], [agent]), "another agent")
            (agent,) = area.agents()
            wait_until(lambda: mount_id(area.mnt) in mounts_of(agent), "an agent in the mount")
            looked = ["stat", "-c", "%a %X %Y %Z", str(sub)]
            before = area.run_as_user(looked).stdout
            assert before.startswith("1777 ")
            with area.listening(area.mnt) as listener:
                (area.src / "sub").chmod(0o700)
                os.utime(area.src / "sub", (1, 1))
                (area.src / "sub" / "x").touch()
                (area.src / "sub" / "x").unlink()
                (area.src / "new").touch()
                listener.hear("CREATE", "new")
            assert area.run_as_user(looked).stdout == before
        result = area.run("unmount", area.mnt)
        assert result.returncode == 0, result.stderr
        assert process.wait(20) == 0
    area.assert_nothing_left()


# Read-only, and others' access ---------------------------------------------------------------


def test_a_read_only_mount_is_told_of_changes_and_makes_none(area: OrdinaryArea) -> None:
    (area.src / "x").write_text("x")
    os.chown(area.src / "x", UID, GID)
    with area.mounted("-o", "ro"), area.listening(area.mnt) as listener:
        for command in (
            "echo more >> x", "rm x", "mv x y", "chmod 600 x", "touch x", "mkdir d", "ln x z",
            "ln -s x l", "mkfifo p", "truncate -s 0 x", "test -w x", "echo new > n",
        ):  # fmt: skip
            result = area.run_as_user(["sh", "-c", f"cd {area.mnt} && {command}"])
            assert result.returncode != 0, command
        assert area.run_as_user(["cat", str(area.mnt / "x")]).stdout == "x"
        (area.src / "x").write_text("xx")
        listener.hear("MODIFY", "x")
        (area.src / "x").rename(area.src / "y")
        listener.hear("MOVED_TO", "y")
        (area.src / "y").unlink()
        listener.hear("DELETE", "y")
        assert area.run_as_user(["ls", str(area.mnt)]).stdout == ""
    area.assert_nothing_left()


@pytest.mark.long
def test_access_is_what_the_user_may_do(area: OrdinaryArea) -> None:
    """Nothing but the server checks it."""
    for mode in (0o600, 0o644, 0o755):
        (area.src / f"{mode:o}").touch()
        (area.src / f"{mode:o}").chmod(mode)
    (area.src / "closed").mkdir(mode=0o700)
    with area.mounted():
        for name in ("600", "644", "755"):
            for test in "rwx":
                here = area.run_as_user(["test", f"-{test}", str(area.src / name)]).returncode
                there = area.run_as_user(["test", f"-{test}", str(area.mnt / name)]).returncode
                assert here == there, (test, name)
        result = area.run_as_user(["sh", "-c", f"cd {area.mnt}/closed"])
        assert result.returncode != 0
        assert area.run_as_user(["ls", str(area.mnt / "closed")]).returncode != 0
