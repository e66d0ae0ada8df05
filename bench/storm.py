"""The remote side that keeps changing: short bursts of new files, until killed.

    python storm.py DIRECTORY

Writes one line when the first burst is done.
"""

from __future__ import annotations

import os
import sys
import time
from itertools import count

BURST_FILES = 20
BURST_SECONDS = 0.01
"""2,000 files a second: short bursts, so that every measurement has many of them."""


def main(path: str) -> None:
    """Make files in ``path``."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    due = time.monotonic()
    for burst in count():
        for index in range(BURST_FILES):
            os.mknod(f"{burst}.{index}", dir_fd=directory)
        if burst == 0:
            os.write(1, b"\n")
        due += BURST_SECONDS
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main(sys.argv[1])
