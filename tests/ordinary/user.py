"""An ordinary user to run tests as, and how: for tests that are root themselves.

The user is one that every system has, with its own group only; nothing of it is changed.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from tests.stage import PROJECT
from tests.workers import is_worker

USER = "daemon"
UID = pwd.getpwnam(USER).pw_uid
GID = pwd.getpwnam(USER).pw_gid
_DEVICE = "/dev/fuse"
_IS_NEW = "import sys; sys.exit(sys.version_info < (3, 11))"


def as_user(command: Sequence[str]) -> list[str]:
    """The command as the user, without any capability."""
    return ["setpriv", f"--reuid={UID}", f"--regid={GID}", "--clear-groups", *command]


def python() -> str:
    """A Python that the user may run: this one, or the system's."""
    candidates = [sys.executable, "/usr/bin/python3", shutil.which("python3") or ""]
    for candidate in filter(None, candidates):
        # By a shell: the first program is looked for with root's capabilities.
        command = as_user(["sh", "-c", f'exec "$0" -c "{_IS_NEW}"', candidate])
        if not subprocess.run(command, cwd="/", capture_output=True, check=False).returncode:
            return candidate
    raise AssertionError(f"{USER} may run no Python of {candidates}")


def environment(**more: str) -> dict[str, str]:
    """Finds farwatch, these tests and what they need; leaves nothing behind."""
    paths = (PROJECT / "src", PROJECT, Path(click.__file__).parent.parent)
    return {
        **os.environ,
        "PYTHONPATH": ":".join(map(str, paths)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "HOME": "/",
        **more,
    }


@contextmanager
def fuse_for_all() -> Iterator[None]:
    """/dev/fuse as udev makes it: everybody may open it, and then mount by fusermount3 only.

    Beside others it stays so: see tests/workers.py.
    """
    before = os.stat(_DEVICE).st_mode & 0o7777
    os.chmod(_DEVICE, 0o666)
    try:
        yield
    finally:
        if not is_worker():
            os.chmod(_DEVICE, before)
