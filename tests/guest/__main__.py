"""A shell in a guest that has a directory of this machine mounted by farwatch.

    python -m tests.guest [DIR] [--series 6.12|6.1]        (as root; make guest DIR=…)

Without DIR it is a temporary directory, which is removed afterwards.  Ends with ``exit``
in the shell, or Ctrl-].
"""

# ruff: noqa: T201

from __future__ import annotations

import argparse
import contextlib
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import termios
import tty
from collections.abc import Iterator
from pathlib import Path

from tests.guest.absent import NoGuest
from tests.guest.initramfs import image
from tests.guest.kernel import PACKAGES
from tests.guest.machine import Machine, Share, require_programs
from tests.guest.programs import GuestSilent, Program
from tests.guest.stage import AGENT, MNT, TAG, farwatch_daemon
from tests.guest.virtiofsd import DaemonError

LEAVE = b"\x1d"
"""Ctrl-]."""
SERIAL = "/dev/ttyS1"
SHELL = f"""
stty -F {SERIAL} rows $0 cols $1 sane
setsid -c sh -i <{SERIAL} >{SERIAL} 2>&1
"""
PROFILE = "/guest/tests/guest/inside/shell.sh"
TICK_SECONDS = 0.2


def main() -> int:
    """Runs the guest; returns the exit status."""
    options = arguments()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    try:
        with contextlib.ExitStack() as stack:
            play(options, stack)
    except (NoGuest, GuestSilent, DaemonError, OSError) as error:
        print(f"farwatch: no guest: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.guest", description=__doc__)
    parser.add_argument("directory", metavar="DIR", nargs="?", type=Path)
    parser.add_argument("--series", choices=PACKAGES, default="6.12", help="of the kernel")
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root: farwatch virtiofsd watches a file system")
    if options.directory and not options.directory.is_dir():
        parser.error(f"{options.directory}: no such directory")
    return options


def play(options: argparse.Namespace, stack: contextlib.ExitStack) -> None:
    """Start the guest, and hand the terminal over to its shell."""
    work = Path(tempfile.mkdtemp(prefix="farwatch-guest-", dir="/tmp"))
    stack.callback(shutil.rmtree, work, ignore_errors=True)
    shared = options.directory.resolve() if options.directory else work / "shared"
    shared.mkdir(exist_ok=True)
    require_programs()
    print("farwatch: starting a guest…", file=sys.stderr)
    daemon = farwatch_daemon(shared)
    stack.callback(daemon.close)
    machine = stack.enter_context(Machine(image(options.series, work), [Share(TAG, daemon)]))
    machine.mount(TAG, MNT)
    agent = stack.enter_context(machine.start([*AGENT, MNT]))
    release = machine.check(["uname", "-r"]).strip()
    print(
        f"\nThis is a guest with Linux {release}.  Its {MNT} is {shared} of this machine.\n"
        f"Try here:             inotifywait -m {MNT}\n"
        f"and in another shell: date >{shared}/hello\n"
        "To leave: exit, or Ctrl-]\n",
        flush=True,
    )
    size = shutil.get_terminal_size()
    environment = {"ENV": PROFILE, "TERM": os.environ.get("TERM", "vt100")}
    shell = machine.start(["sh", "-c", SHELL, str(size.lines), str(size.columns)], environment)
    assert machine.shell
    with raw_terminal():
        connect(machine.shell, shell)
    if not agent.is_running():
        print(f"farwatch: the agent had ended: {agent.errors()}", file=sys.stderr)


@contextlib.contextmanager
def raw_terminal() -> Iterator[None]:
    """Each key goes to the guest as it is."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        print()


def connect(serial: socket.socket, shell: Program) -> None:
    """Copy both ways until the shell has ended, or Ctrl-] or an end of input comes."""
    while shell.is_running():
        ready = select.select([0, serial.fileno()], [], [], TICK_SECONDS)[0]
        if serial.fileno() in ready:
            data = serial.recv(65536)
            if not data:
                return
            os.write(1, data)
        if 0 in ready:
            keys = os.read(0, 4096)
            before, left, _ = keys.partition(LEAVE)
            serial.sendall(before)
            if left or not keys:
                return


if __name__ == "__main__":
    sys.exit(main())
