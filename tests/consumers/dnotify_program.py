"""A dnotify program: F_NOTIFY on a directory, fcntl(2).

    python dnotify_program.py DIRECTORY

One file, standard library only.  Says ``ready``, then a line for each signal: dnotify
does not tell what happened, so for each kind a signal of its own is asked for, from a
descriptor of its own.
"""

# ruff: noqa: T201

from __future__ import annotations

import fcntl
import os
import signal
import sys

KINDS = {
    "MODIFY": fcntl.DN_MODIFY,
    "CREATE": fcntl.DN_CREATE,
    "DELETE": fcntl.DN_DELETE,
    "RENAME": fcntl.DN_RENAME,
    "ATTRIB": fcntl.DN_ATTRIB,
}
F_SETSIG = 10
"""<linux/fcntl.h>; Python's fcntl does not have it."""


def main() -> None:
    numbers = dict(zip(KINDS, range(signal.SIGRTMIN + 1, signal.SIGRTMAX), strict=False))
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers.values())
    for kind, number in numbers.items():
        fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
        fcntl.fcntl(fd, F_SETSIG, number)
        fcntl.fcntl(fd, fcntl.F_NOTIFY, KINDS[kind] | fcntl.DN_MULTISHOT)
    kinds = {number: kind for kind, number in numbers.items()}
    print("ready")
    sys.stdout.flush()
    while True:
        print(kinds[signal.sigwait(kinds)])
        sys.stdout.flush()


if __name__ == "__main__":
    main()
