"""A server of one directory for clients in user space, on any number of addresses.

    made ──run──> listening ──ready──> serving ──signal──> ended: nothing of it is left

Main thread: signals and the door.  A thread for the source, a thread for each client.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from farwatch.abi.fsnotify import Dialect
from farwatch.linux.identity import Who
from farwatch.linux.signals import asked_to_end
from farwatch.serving.clients import Clients
from farwatch.serving.confinement import become_server, settle_memory
from farwatch.serving.door import Door, Listener
from farwatch.serving.feeds import SharedSource
from farwatch.serving.limits import raise_files_limit
from farwatch.serving.listening import ListeningSocket
from farwatch.serving.refused import Refused
from farwatch.serving.shared import SharedDirectory
from farwatch.serving.start import this_start
from farwatch.session.replay import is_reserved
from farwatch.session.settings import Settings
from farwatch.transports.stream.addresses import Address, Tcp, Unix, Vsock, is_local
from farwatch.transports.stream.peers import peer
from farwatch.transports.stream.tls import NoTls, server_context

log = logging.getLogger(__name__)

MAX_WRITE = 1 << 20
_BACKLOG = 128
_ROOT = 0


class Options(NamedTuple):
    """What is served, to whom, and where.

    ``user``         whom clients act as that come by TCP or vsock
    ``token``        what a client must know, if anything
    ``tls``          paths of a certificate and its key, for TCP
    ``socket_mode``  permissions of Unix sockets; None: their owner's alone
    ``dialects``     of fsnotify, that are spoken
    """

    directory: str
    addresses: Sequence[Address]
    user: Who
    token: str | None = None
    tls: tuple[str, str] | None = None
    socket_mode: int | None = None
    socket_group: str | None = None
    read_only: bool = False
    dialects: frozenset[Dialect] = frozenset(Dialect) - {Dialect.PARENTED}
    is_confined: bool = True


class NetworkServer:
    """The whole of it."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._failure: BaseException | None = None

    def run(self, on_ready: Callable[[Sequence[str]], None]) -> None:
        """Serves until a signal comes (SIGINT, SIGTERM, SIGHUP).

        ``on_ready`` is given the addresses, with the ports that were chosen.
        Raises Refused, with nothing left behind.
        """
        options = self._options
        if os.geteuid() != _ROOT:
            raise Refused("serving a directory needs root", remedy="run it with sudo")
        with ExitStack() as stack:
            raise_files_limit(None)
            shared = stack.enter_context(
                SharedDirectory(options.directory, readonly=options.read_only)
            )
            listeners = self._listeners(stack)
            stop = stack.enter_context(asked_to_end())
            become_server()
            shared.enter(is_confined=options.is_confined)
            source = stack.enter_context(shared.watch(silence=False))
            settle_memory()
            sharing = SharedSource(source)
            clients = Clients(sharing, shared.open, self._settings)
            thread = threading.Thread(
                target=sharing.run, args=(stop, self._fail), name="source", daemon=True
            )
            thread.start()
            stack.callback(thread.join)
            stack.callback(clients.stop)
            # Whatever has ended it.
            stack.callback(signal.raise_signal, signal.SIGTERM)
            for listener in listeners:
                if isinstance(listener.socket, ListeningSocket):
                    listener.socket.write_pid()
            on_ready([listener.name for listener in listeners])
            Door(listeners, clients, options.token).run(stop)
        if self._failure is not None:
            raise Refused(f"changes are not reported any more: {self._failure}", options.directory)

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        signal.raise_signal(signal.SIGTERM)

    def _settings(self, client: int) -> Settings:
        start = this_start()
        return Settings(
            start.generation,
            start.hidden_name,
            max_write=MAX_WRITE,
            base=start.base,
            fsnotify=self._options.dialects,
            client=client,
            checks_permissions=True,
        )

    def _listeners(self, stack: ExitStack) -> list[Listener]:
        """Every address listened on.  Raises Refused."""
        options = self._options
        context = None
        if options.tls is not None:
            try:
                context = server_context(*options.tls)
            except NoTls as error:
                raise Refused(error.what, error.where) from None
        for address in options.addresses:
            self._must_be_safe(address)
        found = []
        for address in options.addresses:
            for listening, name in _listen(address, options, stack):
                tls = context if isinstance(address, Tcp) else None
                who = _peer if isinstance(address, Unix) else self._fixed
                found.append(Listener(listening, name, tls, who))
        return found

    def _fixed(self, connection: socket.socket) -> Who:
        return self._options.user

    def _must_be_safe(self, address: Address) -> None:
        """TCP that others can reach needs TLS and a token.  Raises Refused."""
        options = self._options
        if not isinstance(address, Tcp) or (options.tls and options.token):
            return
        try:
            local = is_local(address)
        except OSError as error:
            raise Refused(f"no such host: {error.strerror}", str(address)) from None
        if not local:
            raise Refused(
                "other machines can connect there, which needs TLS and a token",
                str(address),
                "give --tls-cert, --tls-key and --token-file, or listen on 127.0.0.1",
            )


def _listen(
    address: Address, options: Options, stack: ExitStack
) -> Iterator[tuple[ListeningSocket | _Listening, str]]:
    if isinstance(address, Unix):
        made = ListeningSocket.create(
            address.path, options.socket_group, mode=options.socket_mode, backlog=_BACKLOG
        )
        stack.enter_context(made)
        os.set_blocking(made.fileno(), False)
        yield made, str(address)
        return
    try:
        wheres = (
            [(socket.AF_VSOCK, (address.cid, address.port))]
            if isinstance(address, Vsock)
            else address.resolve()
        )
        for family, where in wheres:
            listening = _Listening(family, where)
            stack.callback(listening.close)
            yield listening, str(address._replace(port=listening.port))
    except OSError as error:
        raise Refused(f"cannot listen: {error.strerror}", str(address)) from None


class _Listening:
    """A socket of the network.  Owns it."""

    def __init__(self, family: int, where: tuple[str | int, int]) -> None:
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # Its IPv4 addresses are listened on by a socket of their own, if at all.
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._socket.bind(where)
            self._socket.listen(_BACKLOG)
            self._socket.setblocking(False)
        except BaseException:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[1]

    def fileno(self) -> int:
        """For poll."""
        return self._socket.fileno()

    def accept(self) -> socket.socket:
        """The next connection.  Raises OSError."""
        return self._socket.accept()[0]

    def close(self) -> None:
        """Listens no more."""
        self._socket.close()


def _peer(connection: socket.socket) -> Who | None:
    """Whom the peer of a Unix socket acts as; None for root, who may be anybody."""
    who = peer(connection)
    if is_reserved(who.uid):
        raise OSError(f"user id {who.uid} is reserved")
    return None if who.uid == _ROOT else who
