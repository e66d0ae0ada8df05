"""Runs the C program that makes FSNOTIFY messages, and reads what it prints.

python -m tests.abi.golden.fsnotify > tests/abi/golden/fsnotify.txt
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.abi.golden.header import compiler

SOURCE = Path(__file__).with_suffix(".c")
CAPTURE = Path(__file__).with_suffix(".txt")


class Golden(NamedTuple):
    """What the program has printed."""

    messages: dict[str, bytes]
    """Whole messages, their headers included."""
    sizes: dict[str, int]
    fields: dict[str, list[tuple[str, int, int]]]
    """Of each struct: name, offset and size of its fields, in order."""


def parse(text: str) -> Golden:
    """The program's output.  Raises ValueError for a line that is none of it."""
    golden = Golden({}, {}, {})
    for line in text.splitlines():
        match line.split():
            case ["message", name, data]:
                golden.messages[name] = bytes.fromhex(data)
            case ["sizeof", struct, size]:
                golden.sizes[struct] = int(size)
            case ["offset", struct, field, offset, size]:
                golden.fields.setdefault(struct, []).append((field, int(offset), int(size)))
            case _:
                raise ValueError(f"not of this program: {line!r}")
    return golden


def run(cc: str) -> str:
    """Builds the program and runs it.  Raises subprocess.CalledProcessError."""
    with tempfile.TemporaryDirectory() as directory:
        binary = Path(directory) / "fsnotify"
        subprocess.run([cc, "-Wall", "-Wextra", "-Werror", SOURCE, "-o", binary], check=True)
        return subprocess.run([binary], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    found = compiler()
    if found is None:
        sys.exit("no C compiler")
    sys.stdout.write(run(found))
