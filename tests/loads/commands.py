"""Running other people's programs, each with a bound and with what it has said at hand."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

SECONDS = 1500.0
"""How long one command may take.  Only a failure takes that long."""
_TAIL = 4000


def run(
    *command: str | Path,
    cwd: Path | str = "/",
    env: Mapping[str, str] | None = None,
    check: bool = True,
    user: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """The command to its end; AssertionError, with its last words, unless it succeeds."""
    with subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        user=user,
        group=user,
        extra_groups=[] if user is not None else None,
    ) as process:
        try:
            said, _ = process.communicate(timeout=SECONDS)
        except BaseException:
            # With what it has started: else the mount is in use.
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if check:
        words = " ".join(map(str, command))
        assert process.returncode == 0, f"{words}: {process.returncode}\n{said[-_TAIL:]}"
    return subprocess.CompletedProcess(command, process.returncode, said)


def require(program: str, package: str) -> str:
    """Where a program is; without it the test is skipped, which CI does not accept."""
    found = shutil.which(program)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no {program}, and CI=true: install {package}", pytrace=False)
        pytest.skip(f"NOT RUN: no {program}; install {package}")
    return found


def contents(top: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every name below a directory: type and mode, size, and what it is made of."""
    found = {}
    for directory, directories, files in os.walk(top):
        for name in (*directories, *files):
            path = Path(directory, name)
            status = path.lstat()
            if path.is_symlink():
                made_of = os.fsencode(path.readlink())
            elif path.is_dir():
                made_of = b""
            else:
                made_of = path.read_bytes()
            size = 0 if path.is_dir() else status.st_size
            found[str(path.relative_to(top))] = (status.st_mode, size, made_of)
    return found
