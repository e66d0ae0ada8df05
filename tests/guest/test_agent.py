"""``farwatch-agent.pyz`` in a guest: what it needs, and every way in which its work ends.

On virtiofs nothing but its answer ends an ioctl that is parked, neither a signal nor an
unmount; everything here depends on that answer.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farwatch.agent.endings import Status
from tests.guest.conftest import Images
from tests.guest.machine import Machine, Share
from tests.guest.programs import PROGRAM_SECONDS, Program
from tests.guest.stage import MNT, PYTHON, farwatch_daemon
from tests.guest.virtiofsd import c_virtiofsd
from tests.stage import PROJECT

pytestmark = [pytest.mark.root, pytest.mark.guest]

THEIRS = "/theirs"
AGENT = (PYTHON, "-I", "-S", "/agent.pyz")


class Guest:
    """A guest with one export from farwatch, and one from Debian's virtiofsd."""

    def __init__(self, machine: Machine, export: Path) -> None:
        self.machine = machine
        self.export = export
        self._made = 0

    def prepare(self, pyz: bytes) -> None:
        """What a guest that has just started lacks."""
        self.machine.mount("ours", MNT)
        self.machine.mount("theirs", THEIRS)
        self.machine.put("/agent.pyz", pyz, 0o755)

    @contextmanager
    def agent(self) -> Iterator[Program]:
        """An agent at work."""
        with self.machine.start([*AGENT, MNT]) as program:
            assert line(program) == f"farwatch agent: {MNT}: events are delivered"
            yield program

    def hear_a_change(self) -> None:
        """Returns when a new watch has been told of a change on the host."""
        self._made += 1
        name = f"new{self._made}"
        command = ["inotifywait", "-m", "-q", "-e", "create", "--format", "%f", MNT]
        with self.machine.start(command) as watcher:
            wait_for_watch(self.machine, watcher)
            (self.export / name).touch()
            assert line(watcher) == name


def line(program: Program) -> str:
    data = b""
    deadline = time.monotonic() + PROGRAM_SECONDS
    while not data.endswith(b"\n"):
        more = program.read(max(0.0, deadline - time.monotonic()))
        assert more, f"{program.name}: {data!r}; {program.errors()}"
        data += more
    return data.decode().rstrip("\n")


def wait_for_watch(machine: Machine, watcher: Program) -> None:
    """Until its watch is listed (proc_pid_fdinfo(5))."""
    script = "until grep -qs ^inotify /proc/$(pidof inotifywait)/fdinfo/*; do sleep 0.05; done"
    machine.check(["sh", "-c", script])
    assert watcher.is_running()


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    directory = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, PROJECT / "scripts" / "build-agent", directory], check=True)
    return (directory / "farwatch-agent.pyz").read_bytes()


@pytest.fixture(scope="module")
def guest(images: Images, pyz: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    export = tmp_path_factory.mktemp("export")
    ours = farwatch_daemon(export)
    try:
        theirs = c_virtiofsd(export)
        try:
            shares = [Share("ours", ours), Share("theirs", theirs)]
            with Machine(images.of("6.12"), shares) as machine:
                made = Guest(machine, export)
                made.prepare(pyz)
                yield made
        finally:
            theirs.close()
    finally:
        ours.close()


def test_a_server_that_is_not_farwatch(guest: Guest) -> None:
    done = guest.machine.run([*AGENT, THEIRS])
    assert (done.status, done.stdout) == (Status.NOT_SERVED, b"")
    assert done.stderr == b"farwatch agent: /theirs: its server is not farwatch\n"


def test_what_is_no_virtiofs(guest: Guest) -> None:
    for path, words in (("/", b"neither virtiofs nor FUSE"), ("/none", b"no such directory")):
        done = guest.machine.run([*AGENT, path])
        assert (done.status, done.stdout) == (Status.NOT_SERVED, b"")
        assert words in done.stderr
        assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_signal_ends_it(guest: Guest, number: signal.Signals) -> None:
    with guest.agent() as agent:
        guest.hear_a_change()
        agent.signal(number)
        done = agent.wait()
    assert (done.status, done.stderr) == (-number, b"")
    # The next one has the mount at once.
    with guest.agent():
        guest.hear_a_change()


def test_a_plain_umount_ends_it(guest: Guest) -> None:
    with guest.agent() as agent:
        guest.hear_a_change()
        guest.machine.check(["umount", MNT])
        done = agent.wait()
        assert (done.status, done.stderr) == (Status.GONE, b"")
    guest.machine.mount("ours", MNT)
    with guest.agent():
        guest.hear_a_change()


def test_the_newest_agent_has_the_mount(guest: Guest) -> None:
    with guest.agent() as first, guest.agent() as second:
        done = first.wait()
        words = f"farwatch agent: {MNT}: another agent serves it\n".encode()
        assert (done.status, done.stderr) == (Status.REPLACED, words)
        guest.hear_a_change()
        assert second.is_running()


def test_it_survives_that_the_guest_is_stopped(guest: Guest) -> None:
    with guest.agent() as agent:
        for _ in range(3):
            guest.hear_a_change()
            guest.machine.stop()
            guest.machine.cont()
        guest.hear_a_change()
        assert agent.is_running()
        assert agent.errors() == ""


def test_it_starts_again_in_a_guest_that_was_reset(guest: Guest, pyz: bytes) -> None:
    with guest.agent():
        guest.hear_a_change()
        guest.machine.reset()
    guest.prepare(pyz)
    with guest.agent():
        guest.hear_a_change()
