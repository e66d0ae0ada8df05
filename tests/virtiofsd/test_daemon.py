"""The daemon, with a directory on the disk and a front end without a virtual machine."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import stat
import time
from pathlib import Path

import pytest

from farwatch.abi.vhost_user import Protocol, Request
from tests.linux.areas import tmpfs
from tests.mounting.mounted import wait_until
from tests.session.kernel import LOOKUP, Refused, checked, entry_of, request
from tests.virtiofsd.daemon import Area, end
from tests.virtiofsd.guest import Guest

pytestmark = pytest.mark.root

AUTO_INVAL_DATA, READDIRPLUS, WRITEBACK = 1 << 12, 1 << 13, 1 << 16
DIRECT_IO, KEEP_CACHE, PASSTHROUGH = 1, 2, 1 << 7
DAY = 86_400


@pytest.mark.parametrize("sandbox", ["namespace", "chroot", "none"])
def test_files(area: Area, sandbox: str) -> None:
    (area.src / "old").write_text("there before")
    with area.serving("--sandbox", sandbox) as process, area.guest() as guest:
        guest.init()
        old = guest.lookup("old")
        opened = guest.open(old.node)
        assert guest.read(old.node, opened.fh) == b"there before"
        guest.release(old.node, opened.fh)
        made, opened = guest.create("new")
        assert guest.write(made.node, opened.fh, b"from the guest") == 14
        assert guest.read(made.node, opened.fh) == b"from the guest"
        guest.release(made.node, opened.fh)
        assert (area.src / "new").read_text() == "from the guest"
        assert set(guest.list()) == {b".", b"..", b"old", b"new"}
        guest.mkdir("d")
        guest.rename("new", "moved", new_directory=guest.lookup("d").node)
        assert (area.src / "d" / "moved").exists()
        guest.unlink("old")
        assert os.listdir(area.src) == ["d"]
        guest.close()
        area.assert_ended(process)


def test_nothing_outside_is_reached(area: Area) -> None:
    (area.home / "secret").touch()
    with area.serving(), area.guest() as guest:
        guest.init()
        for name in ("..", ".", "../secret", "/etc/passwd"):
            try:
                entry = guest.lookup(name)
            except Refused:
                continue
            assert entry.node == 1, name
    (area.home / "secret").unlink()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("is_connected", [False, True])
def test_a_signal_ends_it(area: Area, number: int, is_connected: bool) -> None:
    with area.serving() as process:
        guest = area.guest() if is_connected else None
        if guest is not None:
            guest.init()
        process.send_signal(number)
        area.assert_ended(process)
        if guest is not None:
            guest.close()


def test_keep_serves_the_next_front_end(area: Area) -> None:
    with area.serving("--keep") as process:
        for name in ("first", "second"):
            with area.guest() as guest:
                guest.init()
                guest.mkdir(name)
        assert sorted(os.listdir(area.src)) == ["first", "second"]
        end(process)
        area.assert_ended(process)


def test_a_front_end_that_talks_nonsense_is_let_go(area: Area) -> None:
    with area.serving() as process:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(area.socket))
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(100) == b""
        area.assert_ended(process)
    assert "the front end is let go" in area.said()


def test_inherited_socket(area: Area) -> None:
    """As Kata and libvirt hand it over."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(area.socket))
        listening.listen(1)
        process = area.start(f"--fd={listening.fileno()}", pass_fds=[listening.fileno()])
    try:
        with area.guest() as guest:
            guest.init()
            guest.mkdir("d")
        assert process.wait(10) == 0, area.said()
        assert area.socket.exists(), "whoever made it removes it"
    finally:
        process.kill()
        process.wait()


def test_daemonize(area: Area) -> None:
    assert area.start("--daemonize").wait(20) == 0, area.said()
    with area.guest() as guest:
        guest.init()
        pid = int(Path(f"{area.socket}.pid").read_text())
        assert pid != os.getpid()
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not area.socket.exists(), "the end")
    assert area.said() == ""


def test_tag(area: Area) -> None:
    """QEMU has its own tag, and warns of a daemon that offers one unasked."""
    with area.serving("--keep"), area.guest() as guest:
        assert not guest.frontend.protocol & Protocol.CONFIG
    other = area.home / "other.sock"
    with area.serving("--tag=shared", at=other), Guest(str(other)) as guest:
        assert guest.frontend.config(0, 40) == b"shared".ljust(36, b"\0") + b"\1\0\0\0"


@pytest.mark.parametrize(
    ("options", "soft"), [((), None), (("--rlimit-nofile=0",), 77), (("--rlimit-nofile=99",), 99)]
)
def test_limit_of_open_files(area: Area, options: tuple[str, ...], soft: int | None) -> None:
    # prlimit(1) limits the daemon alone: this process has more open.
    with area.serving(*options, through=["prlimit", "--nofile=77:"]) as process:
        limits = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    assert limits[0] == soft if soft is not None else limits[0] > 77


def test_readonly(area: Area) -> None:
    (area.src / "file").write_text("content")
    with area.serving("--readonly"), area.guest() as guest:
        guest.init()
        node = guest.lookup("file").node
        for attempt in (
            lambda: guest.create("new"),
            lambda: guest.unlink("file"),
            lambda: guest.rename("file", "other"),
            lambda: guest.open(node, os.O_RDWR),
            lambda: guest.setattr(node, 1, mode=0o777),
            lambda: guest.setattr(node, 8, size=0),
        ):
            with pytest.raises(Refused, match="EROFS"):
                attempt()
        assert guest.read(node, guest.open(node).fh) == b"content"
    assert (area.src / "file").read_text() == "content"
    assert os.listdir(area.src) == ["file"]


@pytest.mark.parametrize(
    ("options", "is_allowed"),
    [((), False), (("--xattr",), True), (("-o", "xattr"), True), (("--posix-acl",), True)],
)
def test_extended_attributes(area: Area, options: tuple[str, ...], is_allowed: bool) -> None:
    (area.src / "file").touch()
    os.setxattr(area.src / "file", "user.name", b"value")
    with area.serving(*options), area.guest() as guest:
        guest.init()
        node = guest.lookup("file").node
        body = b"\x40\0\0\0\0\0\0\0user.name\0"
        if is_allowed:
            assert guest.ask(22, node, body) == b"value"
        else:
            with pytest.raises(Refused, match="ENOSYS"):
                guest.ask(22, node, body)


@pytest.mark.parametrize("options", [("--xattr",), ("--posix-acl",), ("-o", "posix_acl")])
def test_access_control_lists(area: Area, options: tuple[str, ...]) -> None:
    with area.serving(*options), area.guest() as guest:
        flags = guest.init()[3]
        # FUSE_POSIX_ACL, FUSE_DONT_MASK and FUSE_SETXATTR_EXT of linux/fuse.h.
        asked = [bool(flags & bit) for bit in (1 << 20, 1 << 6, 1 << 29)]
        assert asked == [options != ("--xattr",)] * 3


@pytest.mark.parametrize(
    ("mode", "seconds", "with_agent", "of_files", "is_direct", "plus"),
    [
        ("never", 0, 0, 0, True, False),
        ("none", 0, 0, 0, True, False),
        ("auto", 1, 1, 1, False, True),
        ("always", 1, DAY, 1, False, True),
        ("coherent", 1, DAY, 1, False, True),
        ("metadata", 1, DAY, 1, True, True),
    ],
)
def test_caching(
    area: Area, mode: str, seconds: int, with_agent: int, of_files: int, is_direct: bool, plus: bool
) -> None:
    """What the guest may believe, and that no page outlives what it shows."""
    (area.src / "file").touch()
    (area.src / "d").mkdir()
    with area.serving("--cache", mode), area.guest() as guest:
        flags = guest.init()[3]
        assert flags & AUTO_INVAL_DATA
        assert not flags & WRITEBACK
        assert bool(flags & READDIRPLUS) == plus

        def believed(expected: int) -> None:
            directory, file = guest.lookup("d"), guest.lookup("file")
            assert (directory.entry_valid, directory.attr_valid) == (expected, expected)
            assert (file.entry_valid, file.attr_valid) == (expected, min(expected, of_files))

        believed(seconds)
        agent = guest.start_agent()
        believed(with_agent)
        opened = guest.open(guest.lookup("file").node).flags
        assert bool(opened & DIRECT_IO) == is_direct
        assert not opened & (KEEP_CACHE | PASSTHROUGH)
        guest.releasedir(1, agent.fh)
        believed(seconds)


def test_socket_group_and_modes(area: Area) -> None:
    with area.serving() as process:
        assert stat.S_IMODE(area.socket.stat().st_mode) == 0o700
        end(process)
        area.assert_ended(process)
    with area.serving("--socket-group=daemon"):
        status = area.socket.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o770, 1)


# Remote changes ---------------------------------------------------------------------


def test_remote_changes_are_told_and_own_ones_not(area: Area) -> None:
    with area.serving(), area.guest() as guest:
        guest.init()
        agent = guest.start_agent()
        guest.mkdir("mine")
        made, opened = guest.create("mine-too")
        guest.write(made.node, opened.fh, b"content")
        guest.read(made.node, opened.fh)
        guest.release(made.node, opened.fh)
        guest.list()
        (area.src / "theirs").touch()
        assert agent.hear_all([b"theirs"]) == {b"theirs"}


def test_wait_is_answered_within_a_second_of_silence(area: Area) -> None:
    """Nothing in a guest could interrupt it; and no sooner, or an idle guest would not be."""
    with area.serving(), area.guest() as guest:
        guest.init()
        agent = guest.start_agent()
        done = 0
        silent = 0
        while silent < 2:
            began = time.monotonic()
            batch = agent.waited(agent.submit_wait(done))
            done = batch.number
            assert not batch.steps
            # One may be answered at once, to ask for a scan.
            silent += not batch.flags
            if not batch.flags:
                assert time.monotonic() - began > 0.9


def test_it_sleeps_without_an_agent(area: Area) -> None:
    """On a file system of its own: what others do to theirs would wake it."""
    with tmpfs() as area.src, area.serving() as process, area.guest() as guest:
        guest.init()

        def switches() -> int:
            status = Path(f"/proc/{process.pid}/task/{process.pid}/status").read_text()
            return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])

        def is_asleep() -> bool:
            before = switches()
            time.sleep(1.2)
            return switches() == before

        wait_until(is_asleep, "a second without waking up")


def test_two_guests_on_one_directory(area: Area) -> None:
    """Each is told of what the other does and the host, and not of its own."""
    other = area.home / "other.sock"
    with (
        area.serving(),
        area.serving(at=other),
        area.guest() as one,
        Guest(str(other)) as two,
    ):
        agents = []
        for guest in (one, two):
            guest.init()
            agents.append(guest.start_agent())
        for number in range(5):
            one.mkdir(f"one-{number}")
            two.mkdir(f"two-{number}")
            (area.src / f"host-{number}").mkdir()
        (area.src / "last").touch()
        names = [{f"{who}-{n}".encode() for n in range(5)} for who in ("one", "two", "host")]
        assert agents[0].hear_all([b"last"]) - {b"last"} == names[1] | names[2]
        assert agents[1].hear_all([b"last"]) - {b"last"} == names[0] | names[2]


@pytest.mark.parametrize("queues", [2, 3, 17])
def test_as_many_queues_as_the_front_end_wants(area: Area, queues: int) -> None:
    """Each takes requests; their answers come where they were asked."""
    (area.src / "file").write_text("content")
    with area.serving(), area.guest(queues) as guest:
        guest.init()
        assert guest.frontend.get_number(Request.GET_QUEUE_NUM) >= queues
        for queue in range(1, queues):
            data = request(LOOKUP, 1, b"file\0", unique=1000 + queue)
            pending = guest.frontend.submit(data, 4096, queue=queue)
            number, payload = checked([guest.frontend.wait(pending)], 1000 + queue)
            assert number == 0
            assert entry_of(payload).attributes.size == 7
