"""``farwatch``, but for its mounts' agents being known by their thread, as an ordinary user's.

    python -m tests.ordinary.by_thread mount SRC MNT --daemon

Everything else is root's: so what differs in a test is how replays are told apart.
"""

from __future__ import annotations

import sys

from farwatch.cli.app import main
from farwatch.mounting import server
from farwatch.session.settings import Marks


def _by_thread() -> None:
    before = server._settings
    server._settings = lambda *given: before(*given)._replace(marks=Marks.BY_THREAD)


if __name__ == "__main__":
    _by_thread()
    sys.exit(main(sys.argv[1:]))
