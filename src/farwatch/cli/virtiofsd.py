"""``farwatch virtiofsd``: a virtio-fs device, with virtiofsd's command line."""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any

import click

from farwatch import __version__
from farwatch.cli.failure import Failure
from farwatch.serving.refused import Refused
from farwatch.virtiofsd.daemon import Daemon
from farwatch.virtiofsd.errors import BadOption
from farwatch.virtiofsd.options import Options, read_options
from farwatch.virtiofsd.table import SPECS, Effect, Spec

log = logging.getLogger(__name__)

CAPABILITIES = {"type": "fs", "features": ["separate-options"]}
"""vhost-user.json of QEMU: what whoever starts the daemon may rely on."""
_SYSLOG = "/dev/log"


def virtiofsd_command() -> click.Command:
    """The command, its options being those of the table."""
    return click.Command(
        "virtiofsd",
        callback=_run,
        params=[
            *map(_option, SPECS),
            click.Option(
                ["-o", "compat"], multiple=True, metavar="OPTION[,OPTION…]", help=_COMPAT_HELP
            ),
            click.Option(["-V", "--version", "version"], is_flag=True, help="Print the version."),
        ],
        help=_HELP,
    )


_HELP = """Share a directory with a guest by virtio-fs, with remote changes delivered.

Takes virtiofsd's command lines.  Ends when its front end (QEMU) disconnects.
"""
_COMPAT_HELP = "Options as the C virtiofsd takes them: source=DIR,cache=auto,no_xattr…"


def _option(spec: Spec) -> click.Option:
    about = {
        Effect.WHAT_IT_SAYS: spec.about,
        Effect.NOTHING: f"Has no effect: {spec.about}.",
        Effect.CANNOT: f"Not supported: {spec.about}.",
    }[spec.effect]
    names = [*spec.flags, spec.name]
    if not spec.takes:
        return click.Option(names, is_flag=True, help=about)
    kind = click.Choice(spec.choices) if spec.choices else None
    if spec.bare:
        return click.Option(
            names, type=kind, is_flag=False, flag_value=spec.bare, help=about, metavar=spec.takes
        )
    return click.Option(
        names,
        type=kind,
        help=about,
        metavar=None if spec.choices else spec.takes,
        multiple=spec.effect is Effect.CANNOT,
    )


def _run(compat: tuple[str, ...], version: bool, **values: Any) -> None:
    if version:
        click.echo(f"farwatch virtiofsd {__version__}")
        return
    if values["print_capabilities"]:
        click.echo(json.dumps(CAPABILITIES, indent=2))
        return
    try:
        options = read_options(given(values), compat)
    except BadOption as error:
        raise click.UsageError(str(error), click.get_current_context()) from None
    _log_to(options)
    for note in options.notes:
        log.info("%s", note)
    try:
        Daemon(options).run(_background() if options.daemonize else lambda: None)
    except Refused as refused:
        raise Failure(refused.what, refused.where, refused.remedy) from None


def given(values: Mapping[str, Any]) -> dict[str, str | bool]:
    """What stands on the command line, of everything that could."""
    return {name: _last(value) for name, value in values.items() if value not in (None, False, ())}


def _last(value: Any) -> str | bool:
    return value[-1] if isinstance(value, tuple) else value  # type: ignore[no-any-return]


def _log_to(options: Options) -> None:
    handler: logging.Handler = logging.StreamHandler()
    form = "farwatch: %(message)s"
    problem: str | None = None
    if options.syslog:
        problem = _problem_with_syslog()
        if problem is None:
            handler = logging.handlers.SysLogHandler(_SYSLOG)
            form = "farwatch[%(process)d]: %(message)s"
    handler.setFormatter(logging.Formatter(form))
    level = logging.DEBUG if os.environ.get("FARWATCH_DEBUG") else options.log_level
    logging.basicConfig(level=level, handlers=[handler])
    logging.raiseExceptions = False
    if problem is not None:
        log.warning("no syslog: %s: %s; logging to standard error", _SYSLOG, problem)


def _problem_with_syslog() -> str | None:
    """Why it cannot be reached; a handler would say nothing, and try again when it cannot."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_SYSLOG)
        except OSError as error:
            return error.strerror
    return None


def _background() -> Callable[[], None]:
    """How to go there: the caller goes on in a child, what was started ends with success."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def go() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        if os.fork():
            os._exit(0)
        os.setsid()
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)

    return go


virtiofsd = virtiofsd_command()
