"""Where a server listens: ``unix:PATH``, ``tcp:HOST:PORT``, ``vsock:CID:PORT``.

A host is a name or an address, an IPv6 address in brackets: ``tcp:[::1]:7000``.  Port 0 has
the kernel choose one.  A CID is a number, or ``any`` for every address of this machine
(vsock(7)).
"""

from __future__ import annotations

import ipaddress
import socket
from typing import NamedTuple

__all__ = ["Address", "BadAddress", "Tcp", "Unix", "Vsock", "parse"]

_MOST_PORT = 0xFFFF
_MOST_VSOCK = 0xFFFF_FFFF
_CID_LOCAL = 1
"""VMADDR_CID_LOCAL of linux/vm_sockets.h."""


class BadAddress(ValueError):
    """Not an address; one line says why."""


class Unix(NamedTuple):
    """A socket in the file system."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


class Tcp(NamedTuple):
    """A host as it was given, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp:{host}:{self.port}"

    def resolve(self) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
        """What the host stands for.  Raises OSError (``socket.gaierror``)."""
        found = socket.getaddrinfo(
            self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        return [(family, (str(where[0]), int(where[1]))) for family, _, _, _, where in found]


class Vsock(NamedTuple):
    """An address between a host and its guests."""

    cid: int
    port: int

    def __str__(self) -> str:
        cid = "any" if self.cid == socket.VMADDR_CID_ANY else self.cid
        return f"vsock:{cid}:{self.port}"


Address = Unix | Tcp | Vsock


def parse(text: str) -> Address:
    """An address.  Raises BadAddress."""
    kind, colon, rest = text.partition(":")
    if colon and kind == "unix":
        return _unix(text, rest)
    if colon and kind == "tcp":
        host, port = _split(text, rest)
        return Tcp(host, _number(text, port, _MOST_PORT, "port"))
    if colon and kind == "vsock":
        cid, port = _split(text, rest)
        number = socket.VMADDR_CID_ANY if cid == "any" else _number(text, cid, _MOST_VSOCK, "CID")
        return Vsock(number, _number(text, port, _MOST_VSOCK, "port"))
    raise BadAddress(f"{text}: not unix:PATH, tcp:HOST:PORT or vsock:CID:PORT")


def _unix(text: str, path: str) -> Unix:
    if not path or "\0" in path:
        raise BadAddress(f"{text}: no path of a socket")
    return Unix(path)


def _split(text: str, rest: str) -> tuple[str, str]:
    host, colon, port = rest.rpartition(":")
    if not colon or not host:
        raise BadAddress(f"{text}: a host and a port are needed")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], port
    if ":" in host:
        raise BadAddress(f"{text}: an IPv6 address stands in brackets")
    return host, port


def _number(text: str, digits: str, most: int, what: str) -> int:
    if not (digits.isascii() and digits.isdecimal()) or int(digits) > most:
        raise BadAddress(f"{text}: not a {what}: {digits}")
    return int(digits)


def is_loopback(host: str) -> bool:
    """Whether a numeric address can only be reached from this machine."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def is_local(address: Address) -> bool:
    """Whether nobody on another machine, or in a guest, can connect to this address.

    Raises OSError for a host that is unknown.
    """
    if isinstance(address, Unix):
        return True
    if isinstance(address, Vsock):
        return address.cid == _CID_LOCAL
    return all(is_loopback(where[0]) for _, where in address.resolve())
