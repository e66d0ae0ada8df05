from __future__ import annotations

import socket

import pytest

from farwatch.transports.stream.addresses import (
    Address,
    BadAddress,
    Tcp,
    Unix,
    Vsock,
    is_local,
    is_loopback,
    parse,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/run/s", Unix("/run/s")),
        ("unix:s:1", Unix("s:1")),
        ("tcp:127.0.0.1:7000", Tcp("127.0.0.1", 7000)),
        ("tcp:localhost:0", Tcp("localhost", 0)),
        ("tcp:[::1]:65535", Tcp("::1", 65535)),
        ("vsock:3:4294967295", Vsock(3, 0xFFFF_FFFF)),
        ("vsock:any:5", Vsock(socket.VMADDR_CID_ANY, 5)),
    ],
)
def test_addresses_are_read_and_written(text: str, address: Address) -> None:
    assert parse(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/run/s",
        "unix:",
        "unix:a\0b",
        "udp:host:1",
        "tcp:1",
        "tcp::1",
        "tcp:host",
        "tcp:host:",
        "tcp:host:-1",
        "tcp:host:65536",
        "tcp:host:http",
        "tcp:host:１",
        "tcp:::1:7000",
        "vsock:2",
        "vsock:x:2",
        "vsock:2:4294967296",
    ],
)
def test_what_is_no_address_is_said_with_it(text: str) -> None:
    with pytest.raises(BadAddress) as error:
        parse(text)
    assert str(error.value).startswith(f"{text}: ")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)
    assert is_local(Tcp(host, 1))


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "::ffff:10.0.0.1", "192.0.2.1", "fe80::1%lo"]
)
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_what_others_can_reach() -> None:
    assert is_local(Unix("s"))
    assert not is_local(Tcp("0.0.0.0", 1))
    assert not is_local(Tcp("192.0.2.1", 1))
    assert is_local(Tcp("localhost", 1))
    assert not is_local(Vsock(2, 1))
    assert not is_local(Vsock(socket.VMADDR_CID_ANY, 1))
