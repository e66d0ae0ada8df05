"""``farwatch mount``, with queues that are soon full.

    python launcher.py SOURCE REPLAYS mount SRC MNT ...

SOURCE is ``limited`` for a fanotify queue with the kernel's limit
(fs.fanotify.max_queued_events), or ``unlimited``, as always.  REPLAYS is how many replays
are kept without an agent, and for one that does not get on.  The server is a fork of this
process, so what is changed here is changed there, too.
"""

from __future__ import annotations

import sys


def main() -> None:
    source, replays, *arguments = sys.argv[1:]
    from farwatch.cli import app
    from farwatch.linux.fanotify import FAN_UNLIMITED_QUEUE
    from farwatch.session import delivery
    from farwatch.sources import fanotify

    if source == "limited":
        vars(fanotify)["GROUP_FLAGS"] &= ~FAN_UNLIMITED_QUEUE
    vars(delivery)["_MOST_WITHOUT_AGENT"] = int(replays)
    vars(delivery)["_FROZEN_SECONDS"] = 0.5
    sys.argv = ["farwatch", *arguments]
    app.main()


if __name__ == "__main__":
    main()
