"""Where a server is.

    unix:/path            a socket of ``farwatch serve``
    tcp://host:port       the same, in the clear: for this machine, or through a tunnel
    tcps://host:port      the same with TLS
    vsock://cid:port      the same, between a host (cid 2) and its guests (vsock(7))
    vhost-user:/path      the device socket of ``farwatch virtiofsd``

The ``//`` may be left out.  An IPv6 address stands in brackets.
"""

from __future__ import annotations

from typing import NamedTuple

from farwatch.client.errors import Misuse

_MOST_PORT = 0xFFFF
_MOST_U32 = 0xFFFF_FFFF
_LONGEST_SOCKET = 107
"""``sun_path`` of unix(7), without its NUL."""


class Unix(NamedTuple):
    """A socket in the file system."""

    path: str


class Tcp(NamedTuple):
    """A host and a port, with TLS or without."""

    host: str
    port: int
    tls: bool


class Vsock(NamedTuple):
    """A context id and a port."""

    cid: int
    port: int


class VhostUser(NamedTuple):
    """A vhost-user device's socket."""

    path: str


Url = Unix | Tcp | Vsock | VhostUser


def parse(text: str) -> Url:
    """Reads a URL.  Raises Misuse, with one line that says what is wrong."""
    kind, _, rest = text.partition(":")
    match kind:
        case "unix":
            return Unix(_path(text, rest))
        case "vhost-user":
            return VhostUser(_path(text, rest))
        case "tcp" | "tcps":
            host, port = _split(text, rest)
            return Tcp(host, _number(text, port, _MOST_PORT, "port"), kind == "tcps")
        case "vsock":
            cid, port = _split(text, rest)
            return Vsock(
                _number(text, cid, _MOST_U32, "cid"), _number(text, port, _MOST_U32, "port")
            )
    raise Misuse(
        f"{text}: not unix:/path, tcp://host:port, tcps://host:port, vsock://cid:port "
        "or vhost-user:/path"
    )


def _path(text: str, rest: str) -> str:
    path = rest.removeprefix("//")
    if not path or "\0" in path:
        raise Misuse(f"{text}: no path of a socket")
    if len(path.encode("utf-8", "surrogateescape")) > _LONGEST_SOCKET:
        raise Misuse(f"{text}: a socket's path has at most {_LONGEST_SOCKET} bytes")
    return path


def _split(text: str, rest: str) -> tuple[str, str]:
    host, colon, port = rest.removeprefix("//").removesuffix("/").rpartition(":")
    if not colon or not host:
        raise Misuse(f"{text}: a host and a port are needed")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], port
    if ":" in host or "/" in host or "@" in host:
        raise Misuse(f"{text}: not a host: {host}")
    return host, port


def _number(text: str, digits: str, most: int, what: str) -> int:
    if not (digits.isascii() and digits.isdecimal()) or int(digits) > most:
        raise Misuse(f"{text}: not a {what}: {digits}")
    return int(digits)
