"""``farwatch mount``, with rules switched off.

    python launcher.py mount MUTATIONS SRC MNT ...    as ``farwatch mount SRC MNT ...``
    python launcher.py farwatch.agent MUTATIONS MNT   as the agent that such a mount starts

MUTATIONS are names of ``mutations.py``, joined with commas; an argument follows a colon.
The server is a fork of this process, so what is changed here is changed there, too.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from tests.rules import mutations

AGENT = "farwatch.agent"
"""`farwatch unmount` knows an agent by it."""


def run_mount(names: str, arguments: list[str]) -> None:
    from farwatch.cli import app
    from farwatch.mounting import agentprocess

    class MutatedAgent(subprocess.Popen[bytes]):
        def __init__(self, command: Sequence[str], **options: Any) -> None:
            super().__init__(
                [sys.executable, "-P", __file__, AGENT, names, *command[4:]], **options
            )

    mutations.apply(names, mutations.SERVER)
    changed = SimpleNamespace(**{**vars(subprocess), "Popen": MutatedAgent})
    vars(agentprocess)["subprocess"] = changed
    sys.argv = ["farwatch", "mount", *arguments]
    app.main()


def run_agent(names: str, arguments: list[str]) -> None:
    from farwatch.agent.__main__ import main

    mutations.apply(names, mutations.AGENT)
    sys.exit(main(arguments))


if __name__ == "__main__":
    role, names, *rest = sys.argv[1:]
    {"mount": run_mount, AGENT: run_agent}[role](names, rest)
