"""``python -m farwatch.agent MNT``: replays remote changes on a farwatch mount.

Exit status: 0 when the mount is gone, 1 with one line on standard error if it cannot be
served, 2 for wrong usage.
"""

from __future__ import annotations

import os
import sys

from farwatch.agent.agent import run
from farwatch.agent.channel import NotServed


def main(arguments: list[str]) -> int:
    """Runs the agent; returns the exit status."""
    if len(arguments) != 1:
        sys.stderr.write("usage: farwatch agent MNT" + "\n")
        return 2
    path = arguments[0]
    try:
        run(os.fsencode(path))
    except NotServed as error:
        sys.stderr.write(f"farwatch agent: {path}: {error}" + "\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"farwatch agent: {path}: {error.strerror}" + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
