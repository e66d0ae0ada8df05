"""The ``farwatch`` command: finds the command that was asked for, and says how it ended.

Exit status: 0 success, 1 failure (one line on standard error), 2 wrong usage,
130 interrupted.  FARWATCH_DEBUG=1 in the environment shows tracebacks.
"""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

import click

from farwatch import __version__
from farwatch.cli.failure import Failure, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

SUMMARIES = {
    "mount": "Mount a directory so that watchers see remote changes.",
    "unmount": "Unmount a farwatch mount.",
    "virtiofsd": "Share a directory with a virtual machine, likewise.",
    "agent": "Deliver remote changes in a guest.",
    "serve": "Serve a directory to programs without a mount.",
    "demo": "Show it: half a minute, in a temporary directory.",
}
"""Every command and its line in ``farwatch --help``.  The command ``x`` is the
attribute ``x`` of the module ``farwatch.cli.x``."""


class Commands(click.Group):
    """A group that imports a command's module when that command is run.

    ``farwatch --help`` imports none of them, and so answers at once.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, in the order in which a user meets them."""
        return list(SUMMARIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, or None if there is none."""
        if cmd_name not in SUMMARIES:
            return None
        command: click.Command = getattr(import_module(f"farwatch.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from `SUMMARIES`."""
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="farwatch", message="%(prog)s %(version)s")
def farwatch() -> None:
    """Inotify that works on shared file systems.

    Programs that watch a directory of the mount with plain inotify are told of
    changes that others make behind it.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line (``sys.argv`` unless given) and exit."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    try:
        status = farwatch.main(args=arguments, prog_name="farwatch", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.UsageError as error:
        hint = f"try '{error.ctx.command_path} --help'" if error.ctx else "try --help"
        return _say(f"{error.format_message().rstrip('.')}; {hint}", error.exit_code)
    except click.ClickException as error:
        return _say(error.format_message(), error.exit_code)
    except Failure as failure:
        _show_traceback()
        return _say(str(failure), 1)
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        # Nobody reads standard output any more; keep Python from saying so at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 - the last resort; a traceback is no answer to a user
        _show_traceback()
        return _say(unexpected(error), 1)
    return status if isinstance(status, int) else 0


def unexpected(error: Exception) -> str:
    """The line about an error that nobody has foreseen, with the place where it arose."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if f"{os.sep}farwatch{os.sep}" in frame.filename]
    place = (own or frames)[-1]
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return (
        f"unexpected {what} ({os.path.basename(place.filename)}:{place.lineno}); "
        "FARWATCH_DEBUG=1 shows where it came from"
    )


def _show_traceback() -> None:
    if os.environ.get("FARWATCH_DEBUG", "") not in ("", "0"):
        traceback.print_exc()


def _say(message: str, status: int) -> int:
    click.echo(f"farwatch: {printable(message)}", err=True)
    return status
