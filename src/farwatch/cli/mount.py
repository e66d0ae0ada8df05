"""``farwatch mount SRC MNT``."""

from __future__ import annotations

import logging
import os
import sys
from typing import NoReturn

import click

from farwatch.abi.fsnotify import Dialect
from farwatch.cli.failure import Failure, printable
from farwatch.mounting.checks import Paths, check
from farwatch.mounting.supervisor import Supervisor
from farwatch.serving.refused import Refused
from farwatch.session.settings import SPOKEN


@click.command()
@click.argument("source", metavar="SRC", type=click.Path())
@click.argument("target", metavar="MNT", type=click.Path())
@click.option("--daemon", is_flag=True, help="Return once remote events are delivered.")
@click.option(
    "--log-file", type=click.Path(dir_okay=False), help="Append messages here, not to stderr."
)
@click.option(
    "--fsnotify",
    type=click.Choice(tuple(SPOKEN)),
    default="posted",
    show_default=True,
    help="Whose watches are placed on the server: none; current, of kernels that ask for"
    " farwatch's protocol; posted, also in the layouts of 2021; parented, also in that of 2022,"
    " which other kernels ask for by mistake.  No released kernel asks for any: it has an agent.",
)
def mount(source: str, target: str, daemon: bool, log_file: str | None, fsnotify: str) -> None:
    """Mount directory SRC on MNT, with remote changes delivered.

    Whoever watches below MNT is told of every change that anybody makes in SRC.
    Stays in the foreground until it is interrupted or MNT is unmounted.
    """
    try:
        paths = check(source, target)
        spoken = SPOKEN[fsnotify]
        if daemon:
            _run_detached(paths, log_file, spoken)
        _log_to(log_file)
        status = Supervisor(paths, spoken).run(lambda: click.echo(ready_line(paths)))
    except Refused as refused:
        raise _failure(refused) from None
    sys.exit(status)


def ready_line(paths: Paths) -> str:
    """What is said when the mount is ready."""
    source, target = (printable(os.fsdecode(path)) for path in paths)
    return (
        f"farwatch: {source} is mounted on {target}; remote changes are delivered (Ctrl-C unmounts)"
    )


def _failure(refused: Refused) -> Failure:
    return Failure(refused.what, refused.where, refused.remedy)


def _log_to(log_file: str | None) -> None:
    logging.basicConfig(
        filename=log_file,
        level=logging.DEBUG if os.environ.get("FARWATCH_DEBUG") else logging.INFO,
        format="farwatch: %(message)s"
        if log_file is None
        else "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s",
    )


def _run_detached(paths: Paths, log_file: str | None, fsnotify: frozenset[Dialect]) -> NoReturn:
    """Runs the supervisor in the background; exits when it is ready or has failed."""
    read, write = os.pipe2(os.O_CLOEXEC)
    if os.fork() == 0:
        os.close(read)
        _be_daemon(paths, log_file, fsnotify, write)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        message = answer.readline().rstrip(b"\n")
    if message == b"ready":
        sys.exit(0)
    what, where, remedy = [*message.split(b"\0"), b"", b""][:3]
    raise Failure(
        os.fsdecode(what) or "the mount ended while starting",
        os.fsdecode(where),
        os.fsdecode(remedy),
    )


def _be_daemon(
    paths: Paths, log_file: str | None, fsnotify: frozenset[Dialect], answer: int
) -> NoReturn:
    status = 1
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.chdir("/")
        _log_to(log_file)
        _redirect_standard_files(log_file)

        def ready() -> None:
            os.write(answer, b"ready\n")
            os.close(answer)

        status = Supervisor(paths, fsnotify).run(ready)
    except Refused as refused:
        words = (refused.what, refused.where, refused.remedy)
        os.write(answer, b"\0".join(map(os.fsencode, words)).replace(b"\n", b" ") + b"\n")
    except BaseException:
        logging.getLogger(__name__).exception("the mount failed")
    finally:
        os._exit(status)


def _redirect_standard_files(log_file: str | None) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    out = null
    if log_file is not None:
        out = os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for source, target in ((null, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
