"""The agent as one file on real mounts: its work, and every way in which that ends."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from farwatch.agent.endings import Status
from farwatch.events import Mask
from farwatch.linux.mounts import umount
from tests.agent.running import Process, agent_of, bare, served, started
from tests.mounting.mounted import SECONDS, Area, Ear, wait_until
from tests.stage import PROJECT, fanotify_masks

pytestmark = pytest.mark.root

CREATE, OPEN = Mask.CREATE, Mask.OPEN
SERVERS = pytest.mark.parametrize("kind", ["devfuse", "virtiofs"])
"""With the first a signal interrupts an idle agent's ioctl; with the second nothing does."""


def hear_a_change(area: Area, ear: Ear, name: str) -> None:
    (area.src / name).touch()
    ear.hear((CREATE, name))


@SERVERS
def test_it_delivers_and_ends_with_the_mount(area: Area, pyz: Path, kind: str) -> None:
    with served(area, kind), agent_of(area, pyz) as agent:
        with Ear(area.mnt) as ear:
            hear_a_change(area, ear, "a")
        umount(os.fsencode(area.mnt))
        assert agent.status() == Status.GONE
        assert agent.complaints() == ""


@SERVERS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it(area: Area, pyz: Path, kind: str, number: signal.Signals) -> None:
    with served(area, kind), agent_of(area, pyz) as agent:
        os.kill(agent.pid, number)
        assert agent.status() == -number
        assert agent.complaints() == ""
        # Nothing holds the mount.
        umount(os.fsencode(area.mnt))


@SERVERS
def test_one_that_was_stopped_goes_on(area: Area, pyz: Path, kind: str) -> None:
    with served(area, kind), agent_of(area, pyz) as agent, Ear(area.mnt) as ear:
        os.kill(agent.pid, signal.SIGSTOP)
        wait_until(lambda: state_of(agent.pid) == "T", "it is stopped")
        (area.src / "a").touch()
        os.kill(agent.pid, signal.SIGCONT)
        ear.hear((CREATE, "a"))
        hear_a_change(area, ear, "b")


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_what_the_unit_lets_it_have_is_enough(area: Area, pyz: Path) -> None:
    unit = (PROJECT / "packaging" / "farwatch-agent@.service").read_text()
    (granted,) = re.findall(r"^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE)
    names = ",".join("+" + name.removeprefix("CAP_").lower() for name in granted.split())
    command = ["setpriv", f"--bounding-set=-all,{names}", "--no-new-privs"]
    with served(area), started(area, [*command, *bare(pyz, area.mnt)]) as agent:
        assert agent.line().endswith(": events are delivered")
        with Ear(area.mnt, CREATE | Mask.MODIFY | Mask.ATTRIB | Mask.DELETE) as ear:
            os.mkfifo(area.src / "fifo", 0o600)
            os.mknod(area.src / "null", 0o600 | 0o020000, os.makedev(1, 3))
            (area.src / "file").write_text("x")
            os.chown(area.src / "file", 1000, 1000)
            (area.src / "file").unlink()
            ear.hear(
                *((CREATE, name) for name in ("fifo", "null", "file")),
                (Mask.ATTRIB, "file"),
                (Mask.DELETE, "file"),
            )


def test_systemd_is_told_when_it_is_ready(area: Area, pyz: Path) -> None:
    where = area.home / "notify"
    abstract = f"farwatch-{area.home.name}"
    for address, variable in ((str(where), str(where)), ("\0" + abstract, "@" + abstract)):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, served(area):
            manager.bind(address)
            manager.settimeout(SECONDS)
            command = bare(pyz, "--quiet", area.mnt)
            with started(area, command, NOTIFY_SOCKET=variable) as agent:
                assert b"READY=1" in manager.recv(4096).split(b"\n")
                with Ear(area.mnt) as ear:
                    hear_a_change(area, ear, f"f{len(address)}")
                umount(os.fsencode(area.mnt))
                assert agent.status() == Status.GONE
                assert agent.process.stdout is not None
                assert agent.process.stdout.read() == b""


def test_nobody_listens_for_it(area: Area, pyz: Path) -> None:
    """Neither to what it says nor as a manager: it works all the same."""
    with served(area), (area.home / "err").open("wb") as err:
        read, write = os.pipe()
        os.close(read)
        with subprocess.Popen(
            bare(pyz, area.mnt),
            env=area.environment | {"NOTIFY_SOCKET": str(area.home / "none")},
            stdin=subprocess.DEVNULL,
            stdout=write,
            stderr=err,
        ) as agent:
            os.close(write)
            try:
                with Ear(area.mnt) as ear:
                    hear_a_change(area, ear, "a")
                umount(os.fsencode(area.mnt))
                assert agent.wait(SECONDS) == Status.GONE
            finally:
                agent.kill()
        assert (area.home / "err").read_bytes() == b""


# Two agents --------------------------------------------------------------------------


@SERVERS
def test_the_newest_agent_has_the_mount(area: Area, pyz: Path, kind: str) -> None:
    with served(area, kind), agent_of(area, pyz) as first, Ear(area.mnt) as ear:
        hear_a_change(area, ear, "a")
        with agent_of(area, pyz) as second:
            assert first.status() == Status.REPLACED
            assert first.complaints() == f"farwatch agent: {area.mnt}: another agent serves it\n"
            hear_a_change(area, ear, "b")
            assert second.process.poll() is None
            assert second.complaints() == ""


@SERVERS
def test_one_that_stands_by_waits_for_its_turn(area: Area, pyz: Path, kind: str) -> None:
    command = bare(pyz, "--standby", area.mnt)
    with served(area, kind), agent_of(area, pyz) as first, started(area, command) as second:
        with Ear(area.mnt) as ear:
            hear_a_change(area, ear, "a")
            wait_until_it_stands_by(area, second)
            assert first.process.poll() is None
            os.kill(first.pid, signal.SIGTERM)
            assert second.line() == f"farwatch agent: {area.mnt}: events are delivered"
            hear_a_change(area, ear, "b")
        assert second.complaints() == ""


def wait_until_it_stands_by(area: Area, agent: Process) -> None:
    line = agent.line()
    assert line == f"farwatch agent: {area.mnt}: another agent serves it; standing by"


def test_one_that_stands_by_ends_with_the_mount(area: Area, pyz: Path) -> None:
    command = bare(pyz, "--standby", area.mnt)
    with served(area), agent_of(area, pyz) as first, started(area, command) as second:
        wait_until_it_stands_by(area, second)
        umount(os.fsencode(area.mnt))
        assert (first.status(), second.status()) == (Status.GONE, Status.GONE)
        assert second.complaints() == ""


def test_the_agent_of_farwatch_mount_leaves_to_another_what_that_has_taken(
    area: Area, pyz: Path
) -> None:
    """And takes it back when the other has ended."""
    with area.mounted() as supervisor, Ear(area.mnt) as ear:
        (own,) = area.agents()
        with agent_of(area, pyz) as agent:
            wait_until(lambda: own not in area.agents(), "it has ended")
            wait_until(lambda: "stands by" in area.said(), "a word about it")
            for number in range(3):
                hear_a_change(area, ear, f"a{number}")
            assert agent.process.poll() is None
            os.kill(agent.pid, signal.SIGKILL)
            agent.status()
        hear_a_change(area, ear, "b")
        assert area.said().count("\n") == 2, area.said()
        supervisor.terminate()
        assert supervisor.wait(SECONDS) == 0
        area.assert_nothing_left()


# A server that is restarted ----------------------------------------------------------


def wait_for_opens(server: Process) -> None:
    """Returns when the server has been told that somebody watches for OPEN, and asks for it."""
    wait_until(lambda: any(mask & OPEN for mask in fanotify_masks(server.pid)), "OPEN is asked for")


@SERVERS
def test_it_registers_again_with_a_server_that_was_restarted(
    area: Area, pyz: Path, kind: str
) -> None:
    with served(area, kind) as server, agent_of(area, pyz) as agent:
        with Ear(area.mnt, CREATE | OPEN) as ear:
            wait_for_opens(server)
            for number in range(3):
                hear_a_change(area, ear, f"a{number}")
                ear.hear((OPEN, f"a{number}"))
                server.say("stop")
                wait_until(
                    lambda: agent.complaints().count("does not answer") == number + 1,  # noqa: B023
                    "a word about it",
                )
                server.say("start")
                assert agent.line() == f"farwatch agent: {area.mnt}: registered again"
                # The new server is told what is watched, though nobody has looked since.
                wait_for_opens(server)
                hear_a_change(area, ear, f"b{number}")
                ear.hear((OPEN, f"b{number}"))
        umount(os.fsencode(area.mnt))
        assert agent.status() == Status.GONE


def test_what_it_has_kept_for_the_old_server_is_let_go(area: Area, pyz: Path) -> None:
    (area.src / "held").touch()
    with served(area) as server, agent_of(area, pyz) as agent:
        with Ear(area.mnt, OPEN) as ear:
            wait_for_opens(server)
            with (area.src / "held").open():
                ear.hear((OPEN, "held"))
                assert kept(agent) == ["/held"]
                server.say("stop")
                server.say("start")
                assert agent.line().endswith(": registered again")
                wait_until(lambda: kept(agent) == [], "it has closed the file")


def kept(agent: Process) -> list[str]:
    """What it has open besides directories, pipes and the like, as seen in its clone."""
    links = []
    for fd in Path(f"/proc/{agent.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # It closes what it does not need meanwhile.
            links.append(str(fd.readlink()))
    return [link for link in links if link.endswith("/held")]


def test_a_restart_that_only_one_of_two_survives(area: Area, pyz: Path) -> None:
    """Both find that the server does not know them: one is registered, the other leaves."""
    command = bare(pyz, "--standby", area.mnt)
    with served(area) as server, agent_of(area, pyz) as first, started(area, command) as second:
        wait_until_it_stands_by(area, second)
        server.say("stop")
        wait_until(lambda: "does not answer" in first.complaints(), "it has seen that")
        server.say("start")
        with Ear(area.mnt) as ear:
            hear_a_change(area, ear, "a")
            hear_a_change(area, ear, "b")
        # Whoever came first; one that stands by does so until it is its turn.
        assert first.process.poll() in (None, Status.REPLACED)
        assert second.process.poll() is None


def test_it_ends_with_the_mount_while_its_server_is_away(area: Area, pyz: Path) -> None:
    with served(area) as server, agent_of(area, pyz) as agent:
        server.say("stop")
        wait_until(lambda: "does not answer" in agent.complaints(), "it has seen that")
        umount(os.fsencode(area.mnt))
        assert agent.status() == Status.GONE


def test_it_can_be_ended_while_its_server_is_away(area: Area, pyz: Path) -> None:
    with served(area) as server, agent_of(area, pyz) as agent:
        server.say("stop")
        wait_until(lambda: "does not answer" in agent.complaints(), "it has seen that")
        os.kill(agent.pid, signal.SIGTERM)
        assert agent.status() == -signal.SIGTERM


@SERVERS
def test_a_server_that_dies_for_good(area: Area, pyz: Path, kind: str) -> None:
    with served(area, kind) as server, agent_of(area, pyz) as agent:
        server.process.kill()
        assert agent.status() == Status.GONE
        assert agent.complaints() == ""
