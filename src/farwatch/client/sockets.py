"""The carrier on a stream socket: unix, TCP with TLS or without, vsock.

connecting ── our line ──► greeting ── "ok" ──► messages
└────── "no" ──► ConnectionRefusedError, with the reason
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import ssl
from typing import cast

from farwatch.abi import stream
from farwatch.client.errors import Misuse, ProtocolError
from farwatch.client.link import Link
from farwatch.client.url import Tcp, Unix, Vsock


class SocketCarrier(asyncio.Protocol):
    """See the top of the file.  Owns the socket."""

    notifies = True
    interrupts = True

    def __init__(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        self._link = link
        self._transport: asyncio.Transport | None = None
        self._line = bytearray()
        self._greeted: asyncio.Future[None] = loop.create_future()
        self._writable = asyncio.Event()
        self._writable.set()

    async def greet(self, token: str | None) -> None:
        """Says who we are.  Raises ConnectionRefusedError, or ProtocolError."""
        assert self._transport is not None
        self._transport.write(stream.encode_hello(token))
        await self._greeted

    @property
    def is_greeted(self) -> bool:
        """Whether the server has said ok."""
        greeted = self._greeted
        return greeted.done() and not greeted.cancelled() and greeted.exception() is None

    # What asyncio calls ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """There it is."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Something came."""
        if not self._greeted.done():
            data = self._greeting(data)
        if data:
            self._link.received(data)

    def _greeting(self, data: bytes) -> bytes:
        """Takes the server's line out of what comes; the rest is behind it."""
        self._line += data
        line, end, rest = bytes(self._line).partition(b"\n")
        if not end and len(self._line) < stream.LONGEST_LINE:
            return b""
        try:
            stream.decode_answer(line[: stream.LONGEST_LINE])
        except stream.Refused as refused:
            reason = f"the server says: {refused}"
            self._greeted.set_exception(ConnectionRefusedError(errno.ECONNREFUSED, reason))
        except stream.Malformed as wrong:
            self._greeted.set_exception(ProtocolError(str(wrong)))
        else:
            self._greeted.set_result(None)
            return rest
        self.close()
        return b""

    def eof_received(self) -> None:
        """The server says no more: that is the end."""

    def connection_lost(self, error: Exception | None) -> None:
        """It is over, by either side."""
        self._writable.set()
        what = str(error) if error is not None else "the server has closed the connection"
        lost = ConnectionResetError(errno.ECONNRESET, what)
        if not self._greeted.done():
            self._greeted.set_exception(lost)
        else:
            self._link.drop(lost)

    def pause_writing(self) -> None:
        """The socket takes no more for now."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It does again."""
        self._writable.set()

    # What the link calls -------------------------------------------------------------

    def send(self, data: bytes, room: int) -> None:
        """Sends a request."""
        if self._transport is not None:
            self._transport.write(data)

    async def writable(self) -> None:
        """Waits until the socket takes more."""
        await self._writable.wait()

    def close(self) -> None:
        """Closes the socket, whatever waits to be sent."""
        if self._transport is not None:
            self._transport.abort()


async def connect(
    url: Unix | Tcp | Vsock,
    link: Link,
    *,
    token: str | None,
    tls: ssl.SSLContext | None,
    seconds: float,
) -> SocketCarrier:
    """Connects and greets.

    ``tls`` is for tcps; None: the system's certificates.  Raises OSError, TimeoutError among
    them, and Misuse for a token that others could read, or that is none.
    """
    if token is not None and not stream.is_token(token):
        raise Misuse("a token is printable ASCII without spaces, of less than 4 KiB")
    if token is not None and isinstance(url, Tcp) and not (url.tls or _is_loopback(url.host)):
        raise Misuse(f"a token is not sent to {url.host} in the clear: use tcps")
    carrier: SocketCarrier | None = None
    try:
        async with asyncio.timeout(seconds):
            carrier = await _connected(url, link, tls)
            await carrier.greet(token)
    except TimeoutError:
        raise TimeoutError(errno.ETIMEDOUT, f"no answer within {seconds:g} s") from None
    except ssl.SSLError as error:
        what = getattr(error, "verify_message", None) or error.reason or str(error)
        raise ConnectionError(errno.EPROTO, f"TLS: {what}") from None
    finally:
        if carrier is not None and not carrier.is_greeted:
            carrier.close()
    return carrier


async def _connected(
    url: Unix | Tcp | Vsock, link: Link, tls: ssl.SSLContext | None
) -> SocketCarrier:
    loop = asyncio.get_running_loop()
    if isinstance(url, Unix):
        return (await loop.create_unix_connection(lambda: SocketCarrier(link), url.path))[1]
    if isinstance(url, Tcp):
        context = (tls or ssl.create_default_context()) if url.tls else None
        _, carrier = await loop.create_connection(
            lambda: SocketCarrier(link), url.host, url.port, ssl=context
        )
        return carrier
    opened = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        opened.setblocking(False)
        await loop.sock_connect(opened, (url.cid, url.port))
        return (await loop.create_connection(lambda: SocketCarrier(link), sock=opened))[1]
    except BaseException:
        opened.close()
        raise


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
