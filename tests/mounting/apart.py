"""A part of a test in namespaces of its own: what it mounts nobody else sees."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from farwatch.linux import mounts

CLONE_NEWPID = 0x20000000
CLONE_NEWUSER = 0x10000000
"""linux/sched.h"""


def apart(
    act: Callable[[], None],
    flags: int = mounts.CLONE_NEWNS,
    propagation: int = mounts.MS_PRIVATE,
    until: Callable[[], None] = lambda: None,
) -> None:
    """Calls ``act`` in a child in new namespaces; raises AssertionError with what it raised.

    No mount that is made there gets out; with MS_SLAVE what is mounted outside gets in, where
    it is shared.  With CLONE_NEWPID the processes that ``act`` starts are in a pid namespace of
    their own, with a /proc of its own, and die with it; with CLONE_NEWUSER the caller's user is
    root there.  ``until`` is called meanwhile, in this process.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(read)
        _act_and_exit(act, flags, propagation, write)
    os.close(write)
    try:
        until()
        with os.fdopen(read, "rb") as said:
            words = said.read().decode(errors="replace")
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(child, 0)
    assert status == 0, f"in the namespace (status {status}):\n{words}"


def _act_and_exit(act: Callable[[], None], flags: int, propagation: int, write: int) -> None:
    status = 1
    try:
        user, group = os.geteuid(), os.getegid()
        mounts.unshare(flags)
        if flags & CLONE_NEWUSER:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {user} 1")
            Path("/proc/self/gid_map").write_text(f"0 {group} 1")
        mounts.mount(None, b"/", None, mounts.MS_REC | propagation)
        if flags & CLONE_NEWPID and (child := os.fork()):
            # The namespace ends with its first process.
            os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        if flags & CLONE_NEWPID:
            mounts.mount(b"proc", b"/proc", b"proc")
        act()
        status = 0
    except BaseException:  # noqa: BLE001 - it is raised in the parent
        os.write(write, traceback.format_exc().encode(errors="backslashreplace")[-60000:])
    finally:
        os._exit(status)
