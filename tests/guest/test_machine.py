"""The guest itself: it boots, runs programs, and nothing of it stays behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.conftest import Images
from tests.guest.machine import Machine, Share
from tests.guest.programs import GuestSilent
from tests.guest.virtiofsd import Daemon, c_virtiofsd
from tests.stage import all_processes

pytestmark = [pytest.mark.root, pytest.mark.guest]


@pytest.fixture
def shared(export: Path) -> Iterator[Daemon]:
    """Debian's daemon for ``export``."""
    daemon = c_virtiofsd(export)
    try:
        yield daemon
    finally:
        daemon.close()


def processes_with(path: Path) -> list[int]:
    """Processes that were started with ``path`` on their command line."""
    found = []
    for pid in all_processes():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(path) in words:
            found.append(pid)
    return found


def test_programs_have_a_status_and_two_outputs(machine: Machine) -> None:
    done = machine.run(["sh", "-c", "cat; echo oops >&2; exit 7"], b"given")
    assert done == (7, b"given", b"oops\n")
    assert machine.run(["sh", "-c", "kill -TERM $$"]).status == -signal.SIGTERM
    missing = machine.run(["no-such-program"])
    assert missing.status == 127
    assert b"no-such-program" in missing.stderr


def test_a_check_that_fails_says_what_the_program_said(machine: Machine) -> None:
    with pytest.raises(AssertionError, match="status 3: sorry"):
        machine.check(["sh", "-c", "echo sorry; exit 3"])


def test_much_data_travels_both_ways(machine: Machine) -> None:
    data = os.urandom(1 << 20)
    assert machine.run(["cat"], data).stdout == data


def test_programs_run_side_by_side(machine: Machine) -> None:
    with machine.start(["cat"]) as one, machine.start(["cat"]) as other:
        other.write(b"to the other\n")
        assert other.line(20) == b"to the other\n"
        one.write(b"to the one\n")
        assert one.line(20) == b"to the one\n"
        assert one.is_running()
        one.signal(signal.SIGKILL)
        assert one.wait().status == -signal.SIGKILL
        other.end_input()
        assert other.wait().status == 0


def test_a_program_that_does_not_read_holds_up_nobody(machine: Machine) -> None:
    with machine.start(["sleep", "1000"]) as deaf:
        deaf.write(bytes(1 << 20))
        assert machine.check(["echo", "still here"]) == "still here\n"


def test_leaving_a_program_kills_it_and_what_it_has_started(machine: Machine) -> None:
    script = "sleep 4321 & echo started; wait"
    with machine.start(["sh", "-c", script]) as program:
        assert program.line(20) == b"started\n"
    assert "sleep 4321" not in machine.check(["ps"])


def test_files_are_put_with_their_modes(machine: Machine) -> None:
    data = os.urandom(100_000)
    machine.put("/tmp/file", data, 0o751)
    assert machine.run(["cat", "/tmp/file"]).stdout == data
    assert machine.check(["stat", "-c", "%a", "/tmp/file"]) == "751\n"


def test_it_has_the_python_of_debian_12_or_newer(machine: Machine) -> None:
    script = "import sys, ctypes, json; print(sys.version_info >= (3, 11))"
    assert machine.check(["python3", "-c", script]) == "True\n"


def test_stopped_it_does_nothing_until_it_goes_on(machine: Machine) -> None:
    machine.stop()
    with machine.start(["echo", "late"]) as program:
        assert program.read(0.2) is None
        machine.cont()
        assert program.wait().stdout == b"late\n"


@pytest.mark.parametrize("series", ["6.12", pytest.param("6.1", marks=pytest.mark.long)])
def test_a_share_is_the_directory_of_the_host(
    series: str, images: Images, export: Path, shared: Daemon
) -> None:
    (export / "file").write_text("from the host")
    with Machine(images.of(series), [Share("shared", shared)]) as machine:
        assert machine.check(["uname", "-r"]).startswith(f"{series}.")
        machine.mount("shared", "/mnt")
        assert machine.check(["cat", "/mnt/file"]) == "from the host"
        machine.put("/mnt/other", b"from the guest")
        assert (export / "other").read_text() == "from the guest"


@pytest.mark.long
def test_a_reset_starts_it_again(images: Images, export: Path, shared: Daemon) -> None:
    (export / "file").write_text("text")
    with Machine(images.of("6.12"), [Share("shared", shared)]) as machine:
        for again in (machine.reset, machine.reboot):
            machine.put("/tmp/mark", b"")
            running = machine.start(["sleep", "1000"])
            again()
            with pytest.raises(GuestSilent, match="reset"):
                running.wait()
            assert machine.run(["test", "-e", "/tmp/mark"]).status == 1
            machine.mount("shared", "/mnt")
            assert machine.check(["cat", "/mnt/file"]) == "text"


@pytest.mark.long
def test_two_guests_at_once_share_a_directory(images: Images, export: Path) -> None:
    one, other = c_virtiofsd(export), c_virtiofsd(export)
    try:
        with (
            Machine(images.of("6.12"), [Share("shared", one)]) as first,
            Machine(images.of("6.12"), [Share("shared", other)]) as second,
        ):
            for machine in (first, second):
                machine.mount("shared", "/mnt")
            first.put("/mnt/file", b"from the first")
            assert second.check(["cat", "/mnt/file"]) == "from the first"
    finally:
        one.close()
        other.close()


@pytest.mark.long
def test_two_shares_in_one_guest(images: Images, tmp_path: Path) -> None:
    daemons = []
    try:
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "file").write_text(name)
            daemons.append(c_virtiofsd(tmp_path / name))
        shares = [Share(tag, daemon) for tag, daemon in zip("ab", daemons, strict=True)]
        with Machine(images.of("6.12"), shares) as machine:
            for tag, _ in shares:
                machine.mount(tag, f"/mnt/{tag}")
                assert machine.check(["cat", f"/mnt/{tag}/file"]) == tag
    finally:
        for daemon in daemons:
            daemon.close()


@pytest.mark.long
def test_a_killed_guest_is_gone(images: Images, shared: Daemon) -> None:
    with Machine(images.of("6.12"), [Share("shared", shared)]) as machine:
        program = machine.start(["sleep", "1000"])
        machine.kill()
        assert not machine.is_running()
        with pytest.raises(GuestSilent, match="the guest has ended"):
            program.wait()
        with pytest.raises(GuestSilent):
            machine.run(["true"])
        shared.wait()  # Its front end is gone.


@pytest.mark.long
def test_it_powers_off(images: Images, shared: Daemon) -> None:
    with Machine(images.of("6.12"), [Share("shared", shared)]) as machine:
        machine.mount("shared", "/mnt")
        machine.power_off()
        assert not machine.is_running()


@pytest.mark.long
def test_nothing_stays_behind_a_test_that_fails(images: Images, shared: Daemon) -> None:
    with pytest.raises(ZeroDivisionError) as failed:
        with Machine(images.of("6.12"), [Share("shared", shared)]) as machine:
            home, socket = machine.home, shared.socket
            assert len(processes_with(home)) == 1
            assert processes_with(socket)
            raise ZeroDivisionError
    assert "--- console" in failed.value.__notes__[0]
    assert not home.exists()
    assert processes_with(home) == processes_with(socket) == []
    assert not socket.exists()


def test_a_kernel_that_does_not_start_is_a_failure_and_leaves_nothing(
    images: Images, tmp_path: Path
) -> None:
    """Tried twice; QEMU ends at once, for this is no kernel."""
    broken = tmp_path / "kernel"
    broken.write_bytes(bytes(4096))
    machine = Machine(images.of("6.12")._replace(kernel=broken))
    with pytest.raises(GuestSilent, match="does not start"):
        machine.__enter__()
    assert not machine.home.exists()
    assert processes_with(machine.home) == []
