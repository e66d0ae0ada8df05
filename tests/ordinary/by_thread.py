"""``farwatch``, but for its mounts' agents being known by their thread, as an ordinary user's.

    python -m tests.ordinary.by_thread mount SRC MNT --daemon

Everything else is root's: so what differs in a test is how replays are told apart.
"""

from __future__ import annotations

import sys

from farwatch.cli.app import main
from tests.rules.mutations import by_thread

if __name__ == "__main__":
    by_thread("")
    sys.exit(main(sys.argv[1:]))
