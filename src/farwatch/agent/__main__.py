"""The command ``farwatch agent MNT``, which is also ``python -m farwatch.agent MNT``.

Exit status: see ``Status``.  Whatever goes wrong is one line on standard error.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
from typing import Any, NoReturn

from farwatch import __version__
from farwatch.agent.agent import run
from farwatch.agent.checks import check
from farwatch.agent.endings import SERVER_GONE, NotServed, Status
from farwatch.agent.saying import Voice, say

_STATUSES = """\
Needs root, or to be the user whose mount it is, and runs until MNT is unmounted.  Under a
service manager that wants to be told (Type=notify) it says when it is ready.

Exit status: 0 MNT was unmounted, 1 failure, 2 wrong usage, 3 another agent has taken over,
4 MNT has no farwatch server or this process may not serve it.
"""


def main(arguments: list[str]) -> int:
    """Runs the agent; returns the exit status.  A signal ends the process at once.

    Once the agent has served it does not return: the process ends here.
    """
    try:
        options = _parser().parse_args(arguments)
    except SystemExit as asked:
        return asked.code if isinstance(asked.code, int) else Status.USAGE
    path = options.path
    voice = Voice(path, options.quiet)
    # Not as an exception: it would come when the ioctl that is parked has been answered.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        check(os.fsencode(path))
    except (NotServed, OSError) as error:
        return _complain(voice, error)
    _allow_many_files()
    status = Status.GONE
    try:
        run(os.fsencode(path), voice, options.standby)
    except (NotServed, OSError) as error:
        status = _complain(voice, error)
    # Other threads are in calls that may not return soon.  Python's own end would have them
    # end when they do, by which time no library is there to be loaded for that.
    os._exit(status)


def _complain(voice: Voice, error: NotServed | OSError) -> Status:
    """Says in one line what has gone wrong; the exit status for it."""
    if isinstance(error, NotServed):
        voice.complain(str(error))
        return error.status
    if error.errno in SERVER_GONE:
        voice.complain("its server is gone; unmount it")
        return Status.NOT_SERVED
    voice.complain(error.strerror or str(error))
    return Status.FAILED


def _allow_many_files() -> None:
    """A descriptor is kept for each file that others have open and somebody watches for."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="farwatch agent",
        description="Deliver remote changes to whoever watches below MNT, a farwatch mount.",
        epilog=_STATUSES,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("path", metavar="MNT", help="where the file system is mounted")
    parser.add_argument(
        "--standby",
        action="store_true",
        help="do not take over from another agent, but wait until it has ended",
    )
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="say nothing but what goes wrong"
    )
    parser.add_argument("--version", action="version", version=f"farwatch {__version__}")
    return parser


class _Parser(argparse.ArgumentParser):
    """Wrong usage is one line, as everywhere in farwatch."""

    def error(self, message: str) -> NoReturn:
        say(f"farwatch agent: {message}; try --help")
        sys.exit(Status.USAGE)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Help as the other commands give it."""

    def add_usage(self, usage: Any, actions: Any, groups: Any, prefix: str | None = None) -> None:
        """Begin with a capital letter."""
        super().add_usage(usage, actions, groups, prefix or "Usage: ")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
