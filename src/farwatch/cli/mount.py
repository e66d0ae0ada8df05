"""``farwatch mount SRC MNT``."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

import click

from farwatch.agent.servicemanager import ServiceManager
from farwatch.cli.background import log_to, run_in_background
from farwatch.cli.failure import Failure, printable
from farwatch.mounting.byroot import RootsMount
from farwatch.mounting.checks import Paths, check
from farwatch.mounting.options import Events, Options, parse
from farwatch.mounting.ordinary import OrdinaryMount
from farwatch.mounting.remount import remount
from farwatch.mounting.supervisor import Supervisor
from farwatch.serving.refused import Refused
from farwatch.session.settings import SPOKEN, Cache

_OPTIONS = """\
\b
Mount options (-o), as mount(8) and fstab have them:
  ro, nosuid, nodev, noexec, nosymfollow, noatime, nodiratime, strictatime, sync
                 and their opposites; unless said, as the mount that SRC is on
  allow_other, default_permissions
                 so it is for root's mounts in any case
  auto_unmount   MNT goes when its server dies, even if all of farwatch was killed
  remount        change the flags of the mount on MNT
  cache=, events=, fsnotify=, log_file=
                 as the options of these names
  user, noauto, nofail, _netdev, x-..., comment=
                 are for whoever reads fstab
"""


@click.command(epilog=_OPTIONS)
@click.argument("source", metavar="SRC", type=click.Path(readable=False))
@click.argument("target", metavar="MNT", type=click.Path(readable=False))
@click.option(
    "-o", "mount_options", multiple=True, metavar="OPT[,OPT...]", help="Mount options, see below."
)
@click.option("--daemon", is_flag=True, help="Return once remote events are delivered.")
@click.option(
    "--log-file",
    type=click.Path(dir_okay=False),
    help="Append messages here, not to stderr (or, with --daemon, to the system's log).",
)
@click.option(
    "--cache",
    type=click.Choice([cache.value for cache in Cache]),
    help="What programs are answered from memory: coherent, whatever is known to be so; auto,"
    " names and attributes for a second; never, nothing.  [default: coherent]",
)
@click.option(
    "--events",
    type=click.Choice([events.value for events in Events]),
    help="Where remote changes are heard of: fanotify; inotify, which sees only what is in use"
    " in MNT; none; auto, the best of what can be had.  [default: auto]",
)
@click.option(
    "--fsnotify",
    type=click.Choice(tuple(SPOKEN)),
    help="Whose watches are placed on the server: none; current, of kernels that ask for"
    " farwatch's protocol; posted, also in the layouts of 2021; parented, also in that of 2022,"
    " which other kernels ask for by mistake.  No released kernel asks for any: it has an agent."
    "  [default: posted]",
)
def mount(
    source: str,
    target: str,
    mount_options: Sequence[str],
    daemon: bool,
    log_file: str | None,
    cache: str | None,
    events: str | None,
    fsnotify: str | None,
) -> None:
    """Mount directory SRC on MNT, with remote changes delivered.

    Whoever watches below MNT is told of every change that anybody makes in SRC.
    Stays in the foreground until it is interrupted or MNT is unmounted.
    """
    try:
        options = parse(",".join(mount_options))
        if cache is not None:
            options = options._replace(cache=Cache(cache))
        if events is not None:
            options = options._replace(events=Events(events))
        if fsnotify is not None:
            options = options._replace(fsnotify=SPOKEN[fsnotify])
        if log_file is not None:
            options = options._replace(log_file=log_file)
        status = mount_with(source, target, options, is_daemon=daemon)
    except Refused as refused:
        raise Failure(refused.what, refused.where, refused.remedy) from None
    sys.exit(status)


def mount_with(source: str, target: str, options: Options, *, is_daemon: bool) -> int:
    """Mounts, or changes a mount's flags; the exit status.  Raises Refused and Failure.

    In the background it returns when changes are delivered, else when the mount has ended.
    """
    if options.remount:
        remount(target, options)
        return 0
    paths = check(source, target)
    kind = RootsMount if os.geteuid() == 0 else OrdinaryMount
    supervisor = Supervisor(kind(paths, options))
    if is_daemon:
        run_in_background(options.log_file, supervisor.run)
        return 0
    manager = ServiceManager()
    log_to(options.log_file, logging.StreamHandler())

    def ready() -> None:
        line = ready_line(paths, options.events)
        click.echo(line)
        manager.ready(f"{printable(os.fsdecode(paths.target))} is mounted")

    return supervisor.run(ready)


def ready_line(paths: Paths, events: Events = Events.AUTO) -> str:
    """What is said when the mount is ready."""
    source, target = (printable(os.fsdecode(path)) for path in paths)
    told = (
        "remote changes raise no events"
        if events is Events.NONE
        else "remote changes are delivered"
    )
    return f"farwatch: {source} is mounted on {target}; {told} (Ctrl-C unmounts)"
