"""``farwatch serve``: its options, who is let in, and what it says when it cannot."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from tests.mounting.mounted import SECONDS, wait_until
from tests.serving.area import Area
from tests.serving.wire import connected, dial, wired

TOKEN = "0123456789abcdef0123456789abcdef"
REFUSED = b"FARWATCH/1 no "


@pytest.fixture
def area(tmp_path: Path) -> Area:
    return Area(tmp_path)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """For localhost, signed by itself, and its key."""
    home = tmp_path_factory.mktemp("tls")
    paths = home / "cert.pem", home / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", str(paths[1]), "-out", str(paths[0])),
        ],
        check=True,
        capture_output=True,
    )
    return paths


def secure(area: Area, certificate: tuple[Path, Path]) -> tuple[str, ...]:
    token = area.home / "token"
    token.write_text(TOKEN + "\n")
    return (
        f"--tls-cert={certificate[0]}",
        f"--tls-key={certificate[1]}",
        f"--token-file={token}",
    )


def context(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate[0]))


# What it says ------------------------------------------------------------------------


def said(area: Area, *arguments: str, status: int = 1) -> str:
    result = area.run(*arguments)
    assert (result.returncode, result.stdout) == (status, ""), result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("farwatch: ")
    return result.stderr


def test_usage(area: Area) -> None:
    where = str(area.directory)
    assert "--listen" in said(area, where, status=2)
    assert "DIR" in said(area, "--listen=unix:s", status=2)
    assert "udp:h:1" in said(area, where, "--listen=udp:h:1", status=2)
    assert "65536" in said(area, where, "--listen=tcp:h:65536", status=2)
    assert "--tls-key" in said(area, where, "--listen=unix:s", "--tls-cert=c", status=2)
    assert "--tls-cert" in said(area, where, "--listen=unix:s", "--tls-key=c", status=2)
    assert "0999" in said(area, where, "--listen=unix:s", "--socket-mode=0999", status=2)
    assert "french" in said(area, where, "--listen=unix:s", "--dialect=french", status=2)


def test_tokens_that_are_none(area: Area) -> None:
    token = area.home / "token"
    base = (str(area.directory), "--listen=unix:s", f"--token-file={token}")
    assert str(token) in said(area, *base)
    for text in ("", "\n", "short\n", "two words that are long\n", "x" * 5000, "ä" * 20):
        token.write_text(text)
        assert str(token) in said(area, *base)


@pytest.mark.root
def test_what_cannot_be_served(area: Area) -> None:
    where = str(area.directory)
    assert "no such directory" in said(area, str(area.home / "none"), "--listen=unix:s")
    (area.home / "file").write_text("")
    assert "not a directory" in said(area, str(area.home / "file"), "--listen=unix:s")
    assert "/proc" in said(area, "/proc", "--listen=unix:s")
    assert "no such user" in said(area, where, "--listen=unix:s", "--user=nosuchuser")
    assert "no such group" in said(area, where, "--listen=unix:s", "--socket-group=nosuch")
    assert "no directory for the socket" in said(area, where, "--listen=unix:none/s")
    assert "file" in said(area, where, "--listen=unix:file")
    assert sorted(os.listdir(area.home)) == ["dir", "file"]


@pytest.mark.root
def test_addresses_that_are_taken(area: Area) -> None:
    where = str(area.directory)
    with area.serving(listen=(area.unix, "tcp:127.0.0.1:0")) as server:
        assert "listens" in said(area, where, f"--listen={area.unix}")
        line = said(area, where, f"--listen={server.addresses[1]}")
        assert "in use" in line
        assert server.addresses[1] in line
        with connected(server.address) as client:
            client.begin()


@pytest.mark.root
@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1"])
def test_tcp_that_others_can_reach_needs_tls_and_a_token(
    area: Area, certificate: tuple[Path, Path], host: str
) -> None:
    where, listen = str(area.directory), f"--listen=tcp:{host}:0"
    options = secure(area, certificate)
    for some in ((), options[:2], options[2:]):
        line = said(area, where, "--listen=unix:s", listen, *some)
        assert "TLS and a token" in line
        assert host in line
    assert sorted(os.listdir(area.home)) == ["dir", "token"]


@pytest.mark.root
def test_an_unknown_host(area: Area) -> None:
    assert "no such host" in said(area, str(area.directory), "--listen=tcp:no.such.invalid:1")


@pytest.mark.root
def test_certificates_that_are_none(area: Area, certificate: tuple[Path, Path]) -> None:
    where = str(area.directory)
    nonsense = area.home / "nonsense"
    nonsense.write_text("nonsense")
    for cert, key in (
        (nonsense, certificate[1]),
        (certificate[0], nonsense),
        (area.home / "none", certificate[1]),
        (certificate[0], area.home / "none"),
    ):
        line = said(
            area, where, "--listen=tcp:127.0.0.1:0", f"--tls-cert={cert}", f"--tls-key={key}"
        )
        assert str(cert) in line or str(key) in line


# Who is let in -----------------------------------------------------------------------


@pytest.mark.root
def test_only_who_knows_the_token_is_served(area: Area, certificate: tuple[Path, Path]) -> None:
    with area.serving(secure(area, certificate)[2]) as server:
        (area.home / "token").unlink()
        for hello in (
            b"FARWATCH/1\n",
            b"FARWATCH/1 \n",
            b"FARWATCH/1 wrong\n",
            b"FARWATCH/1 " + TOKEN[:-1].encode() + b"\n",
            b"FARWATCH/1 " + TOKEN.encode() + b"x\n",
        ):
            with wired(server.address, hello) as wire:
                assert wire.line().startswith(REFUSED)
                assert wire.is_gone()
        with connected(server.address, b"FARWATCH/1 " + TOKEN.encode() + b"\n") as client:
            client.begin()
        assert TOKEN not in server.said()


@pytest.mark.root
def test_tls(area: Area, certificate: tuple[Path, Path]) -> None:
    hello = b"FARWATCH/1 " + TOKEN.encode() + b"\n"
    options = secure(area, certificate)
    (area.directory / "shared").touch()
    (area.directory / "shared").chmod(0o666)
    with area.serving(*options, listen=("tcp:0.0.0.0:0", area.unix)) as server:
        (area.home / "token").unlink()
        address = server.address.replace("0.0.0.0", "127.0.0.1")
        with connected(address, hello, context(certificate)) as client:
            client.begin().mark(1, 0x100)
            assert client.wire.socket.version() in ("TLSv1.2", "TLSv1.3")  # type: ignore[attr-defined]
            (area.directory / "d").mkdir()
            assert client.told(b"d")
            # Much at once, both ways: records, and what does not fit into one.
            node = client.lookup("shared").node
            fh = client.open(node, os.O_RDWR).fh
            data = os.urandom(1 << 20)
            assert client.write(node, fh, data) == len(data)
            assert client.read(node, fh, len(data)) == data
        with wired(address, hello, context(certificate)) as wire:
            assert wire.line() == b"FARWATCH/1 ok\n"
        with wired(address, b"FARWATCH/1\n", context(certificate)) as wire:
            assert wire.line().startswith(REFUSED)
        # Without TLS nobody is told anything.
        with wired(address, hello) as wire:
            assert wire.is_gone()
        # A Unix socket has none.
        with connected(server.addresses[1], hello) as client:
            client.begin()


@pytest.mark.root
def test_strangers_do_not_hold_up_tls(area: Area, certificate: tuple[Path, Path]) -> None:
    hello = b"FARWATCH/1 " + TOKEN.encode() + b"\n"
    with area.serving(*secure(area, certificate), listen=("tcp:127.0.0.1:0",)) as server:
        (area.home / "token").unlink()
        silent = [dial(server.address) for _ in range(20)]
        silent[0].sendall(b"\x16\x03\x01\x02\x00\x01")
        try:
            with connected(server.address, hello, context(certificate)) as client:
                client.begin()
        finally:
            for each in silent:
                each.close()


@pytest.mark.root
def test_vsock(area: Area) -> None:
    """As far as this kernel has it: without vsock_loopback nobody can connect."""
    problem = _problem_with_vsock()
    if problem:
        assert problem in said(area, str(area.directory), "--listen=vsock:1:7123")
        return
    with area.serving(listen=("vsock:1:7123",)) as server:
        assert server.addresses == ["vsock:1:7123"]
        with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as peer:
            peer.settimeout(SECONDS)
            try:
                peer.connect((1, 7123))
            except OSError:
                return
            peer.sendall(b"FARWATCH/1\n")
            assert peer.recv(100) == b"FARWATCH/1 ok\n"


def _problem_with_vsock() -> str:
    try:
        with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as probe:
            probe.bind((1, socket.VMADDR_PORT_ANY))
    except OSError as error:
        return error.strerror or str(error)
    return ""


@pytest.mark.root
def test_the_log(area: Area) -> None:
    with area.serving("--log-level=off") as server:
        with connected(server.address) as client:
            client.begin()
        with wired(server.address, b"nonsense\n") as wire:
            wire.line()
        assert server.said() == ""
    with area.serving() as server:
        with connected(server.address) as client:
            client.begin()
        wait_until(lambda: "client 1 is gone" in server.said(), "its end")
        assert f"client 1 is root at {area.unix}" in server.said()


@pytest.mark.root
def test_without_a_sandbox(area: Area) -> None:
    with area.serving("--sandbox=none") as server, connected(server.address) as client:
        client.begin().mark(1, 0x100)
        (area.directory / "d").mkdir()
        assert client.told(b"d")
