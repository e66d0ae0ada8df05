"""``farwatch serve``: a directory for programs that have no mount of it."""

from __future__ import annotations

import logging
import os
from typing import Any

import click

from farwatch.cli.failure import Failure, printable
from farwatch.serving.refused import Refused

_LEVELS = ("off", "error", "warn", "info", "debug", "trace")
_NUMBERS = {
    "off": logging.CRITICAL + 1,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
}
_SHORTEST_TOKEN = 16
"""Characters; less can be guessed."""


@click.command()
@click.argument("directory", metavar="DIR")
@click.option(
    "--listen",
    "addresses",
    multiple=True,
    required=True,
    metavar="ADDRESS",
    help="unix:PATH, tcp:HOST:PORT or vsock:CID:PORT; may be given more than once.",
)
@click.option("--tls-cert", metavar="FILE", help="Certificate (chain) for TCP, PEM.")
@click.option("--tls-key", metavar="FILE", help="Its key, PEM, not encrypted.")
@click.option("--token-file", metavar="FILE", help="What every client has to know: one line.")
@click.option(
    "--user",
    default="nobody",
    show_default=True,
    help="Whom clients act as that come by TCP or vsock.  By a Unix socket they are who they"
    " are, and root is whom it says.",
)
@click.option("--read-only", is_flag=True, help="Clients can change nothing.")
@click.option(
    "--dialect",
    "dialects",
    multiple=True,
    type=click.Choice(["posted", "aggregated", "parented", "current"]),
    help="Speak only these dialects of the notification protocol.  [default: all that a"
    " client can ask for without a doubt: not parented]",
)
@click.option("--socket-group", metavar="GROUP", help="Group of Unix sockets; their mode is 0770.")
@click.option("--socket-mode", metavar="MODE", help="Mode of Unix sockets.  [default: 0700]")
@click.option(
    "--sandbox",
    type=click.Choice(["namespace", "none"]),
    default="namespace",
    show_default=True,
    help="namespace: the server reaches no file but those of DIR.",
)
@click.option("--log-level", type=click.Choice(_LEVELS), default="info", show_default=True)
def serve(directory: str, log_level: str, **values: Any) -> None:
    """Serve DIR to programs that use farwatch.client: files, and what happens to them.

    No mount, and no privileges for them.  TCP that other machines can reach needs TLS and a
    token.  SIGINT and SIGTERM end it.
    """
    level = logging.DEBUG if os.environ.get("FARWATCH_DEBUG") else _NUMBERS.get(log_level)
    logging.basicConfig(level=level or logging.DEBUG, format="farwatch: %(message)s")
    logging.raiseExceptions = False
    from farwatch.serving.network import NetworkServer

    try:
        NetworkServer(_options(directory, values)).run(_ready)
    except Refused as refused:
        raise Failure(refused.what, refused.where, refused.remedy) from None


def _ready(names: Any) -> None:
    for name in names:
        click.echo(f"listening on {printable(name)}")
    click.echo("ready")


def _options(directory: str, given: dict[str, Any]) -> Any:
    from farwatch.abi.fsnotify import Dialect
    from farwatch.serving.network import Options

    certificate, key, token_file = (given[name] for name in ("tls_cert", "tls_key", "token_file"))
    if (certificate is None) != (key is None):
        missing = "--tls-key" if key is None else "--tls-cert"
        raise click.UsageError(f"{missing} is needed as well", click.get_current_context())
    options = Options(
        directory,
        _addresses(given["addresses"]),
        _user(given["user"]),
        token=None if token_file is None else _token(token_file),
        tls=None if certificate is None else (certificate, key),
        socket_mode=None if given["socket_mode"] is None else _mode(given["socket_mode"]),
        socket_group=given["socket_group"],
        read_only=given["read_only"],
        is_confined=given["sandbox"] != "none",
    )
    dialects = frozenset(map(Dialect, given["dialects"]))
    return options._replace(dialects=dialects) if dialects else options


def _addresses(texts: tuple[str, ...]) -> Any:
    from farwatch.transports.stream.addresses import BadAddress, parse

    try:
        return [parse(text) for text in texts]
    except BadAddress as error:
        raise click.UsageError(f"--listen={error}", click.get_current_context()) from None


def _user(name: str) -> Any:
    from farwatch.linux.identity import user

    try:
        return user(name)
    except (KeyError, OverflowError):
        raise Failure("no such user", name, "give --user=NAME") from None


def _token(path: str) -> str:
    from farwatch.abi.stream import LONGEST_LINE, is_token

    try:
        with open(path, "rb") as file:
            data = file.read(LONGEST_LINE + 2)
    except OSError as error:
        raise Failure(f"the token cannot be read: {error.strerror}", path) from None
    token = data.decode("utf-8", "surrogateescape").strip()
    if not is_token(token):
        raise Failure("no token: one line of printable ASCII, without spaces, is needed", path)
    if len(token) < _SHORTEST_TOKEN:
        raise Failure(
            f"the token is shorter than {_SHORTEST_TOKEN} characters",
            path,
            "openssl rand -hex 32 makes a good one",
        )
    return token


def _mode(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise click.UsageError(
            f"--socket-mode={text}: not permissions (as 0666)", click.get_current_context()
        )
    return mode
