"""What the command says when it cannot do what it was asked: one line, and a status."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stage import farwatch_environment
from tests.virtiofsd.daemon import Area


def assert_refused(area: Area, arguments: tuple[str, ...], words: str, status: int) -> None:
    result = area.run(*arguments)
    assert result.returncode == status, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("farwatch: ")
    assert result.stderr.count("\n") == 1, result.stderr
    assert words in result.stderr
    assert not area.socket.exists()
    assert not os.path.exists(f"{area.socket}.pid")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--frobnicate",), "No such option '--frobnicate'"),
        (("-o", "frobnicate"), "no such option: -o frobnicate"),
        (("--cache=sometimes",), "sometimes"),
        ((), "what to share is missing"),
        (("--shared-dir=src",), "the socket is missing"),
        (("--shared-dir=src", "--fd=x"), "not a number"),
        (("--shared-dir=src", "--fd=3", "--translate-uid=map:0:1:1"), "not supported"),
        (("src",), "unexpected extra argument"),
    ],
)
def test_wrong_usage(area: Area, arguments: tuple[str, ...], words: str) -> None:
    assert_refused(area, arguments, words, 2)


@pytest.mark.root
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--shared-dir=none",), "no such directory: none"),
        (("--shared-dir=no\nne",), r"no such directory: no\nne"),
        (("--shared-dir=file",), "not a directory: file"),
        (("--shared-dir=/proc",), "changes there cannot be watched"),
        (("--shared-dir=src", "--socket-path=none/s"), "no directory for the socket"),
        (("--shared-dir=src", "--socket-path=src/"), "ends with a slash"),
        (("--shared-dir=src", "--socket-path=file"), "it exists, and is no socket: file"),
        (("--shared-dir=src", "--socket-path=src"), "it exists, and is no socket: src"),
        (("--shared-dir=src", f"--socket-path={'x' * 108}"), "longer than 107 bytes"),
        (("--shared-dir=src", "--socket-group=no-such-group"), "no such group: no-such-group"),
        (("--shared-dir=src", "--rlimit-nofile=1000000000"), "so many files"),
    ],
)
def test_what_cannot_be(area: Area, arguments: tuple[str, ...], words: str) -> None:
    (area.home / "file").touch()
    assert_refused(area, (f"--socket-path={area.socket}", *arguments), words, 1)
    assert sorted(os.listdir(area.home)) == ["file", "src"]


@pytest.mark.root
def test_descriptors_that_cannot_be(area: Area) -> None:
    with socket.socket(socket.AF_UNIX) as idle, open("/dev/null") as null:
        fds = (idle.fileno(), null.fileno())
        for fd, words in (
            (idle.fileno(), "not a Unix stream socket that listens"),
            (null.fileno(), "not a socket"),
            (9999, "no such file descriptor"),
        ):
            result = area.run(f"--fd={fd}", f"--shared-dir={area.src}", pass_fds=fds)
            assert result.returncode == 1
            assert result.stderr == f"farwatch: {words}: --fd={fd}\n" or words in result.stderr
            assert result.stderr.count("\n") == 1


@pytest.mark.root
def test_a_live_socket_is_refused_and_a_stale_one_replaced(area: Area) -> None:
    with area.serving() as process:
        assert area.run(f"--socket-path={area.socket}", f"--shared-dir={area.src}").stderr == (
            f"farwatch: another daemon listens there: {area.socket}\n"
        )
        assert area.socket.exists()
        process.kill()
        process.wait()
        assert area.socket.exists()
    with area.serving(), area.guest() as guest:
        guest.init()


@pytest.mark.root
def test_somebody_elses_live_socket_is_refused(area: Area) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(area.socket))
        other.listen(1)
        result = area.run(f"--socket-path={area.socket}", f"--shared-dir={area.src}")
    assert (result.returncode, result.stderr) == (
        1,
        f"farwatch: somebody listens there: {area.socket}\n",
    )
    assert sorted(os.listdir(area.home)) == ["fs.sock", "src"]


def test_capabilities(area: Area) -> None:
    """libvirt reads ``type``, and by ``separate-options`` how it may ask for things."""
    result = area.run("--print-capabilities")
    assert result.returncode == 0
    assert json.loads(result.stdout) == {"type": "fs", "features": ["separate-options"]}


def test_version_and_help(area: Area) -> None:
    assert area.run("--version").stdout.startswith("farwatch virtiofsd ")
    assert area.run("-V").returncode == 0
    text = area.run("--help").stdout
    for option in ("--shared-dir", "--fd", "-o", "--seccomp", "--translate-uid"):
        assert option in text


SYSLOG = """
import sys
from farwatch.cli import virtiofsd
virtiofsd._SYSLOG = sys.argv[1]
virtiofsd.virtiofsd.main(["--shared-dir=src", "--fd=0", "--syslog", "-o", "norace"])
"""


def test_syslog(area: Area) -> None:
    """Its failure is still said to whoever has started it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        for path, is_there in ((area.home / "none", False), (area.socket, True)):
            if is_there:
                syslog.bind(str(path))
            result = subprocess.run(
                [sys.executable, "-c", SYSLOG, str(path)],
                env=farwatch_environment(),
                cwd=area.home,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            note = "farwatch: --norace has no effect here: there is no fallback that could race\n"
            assert (note in result.stderr) is not is_there
            assert ("no syslog" in result.stderr) is not is_there
        assert b"--norace has no effect here" in syslog.recv(1000)


@pytest.mark.root
def test_what_has_no_effect_is_said_once(area: Area) -> None:
    with area.serving("--thread-pool-size=8", "-o", "norace,norace", "--thread-pool-size=9"):
        pass
    lines = Path(area.err).read_text().splitlines()
    assert lines == [
        "farwatch: --thread-pool-size has no effect here: one thread serves the guest's requests",
        "farwatch: --norace has no effect here: there is no fallback that could race",
    ]
