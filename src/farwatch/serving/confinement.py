"""What a server's process may reach: its export, and nothing else of the host's files.

It lives in a mount namespace that holds nothing but /proc and a bind mount of the export,
so that it keeps no other mount of the host busy, and reaches no file but the export's.
All opens go through that bind mount, which the source may be told to ignore.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import os

from farwatch.linux.namespace import enter_private_root

EXPORT = b"/export"
"""Where a confined server has the directory that it exports."""
_NO_ROOT = {
    errno.EINVAL: "a mount namespace cannot be made in a plain chroot (enter it by pivot_root,"
    " as container runtimes do)",
    errno.EPERM: "a mount namespace cannot be made here (CAP_SYS_ADMIN is needed)",
}


class Unservable(Exception):
    """The server cannot start here; one line says why."""


def become_server() -> None:
    """Set the process up as a server: files get the modes and groups that clients ask for."""
    os.umask(0)
    # Root's own groups must not count when a set-gid bit is to be kept for a caller.
    os.setgroups([])


def confine(tree: int) -> int:
    """Leave the host's mounts for the export alone; a descriptor of it, the caller's.

    ``tree`` is a detached clone of the mount that the export is on, from the export down
    (``open_tree``), and is closed.  Raises Unservable.
    """
    _import_late()
    try:
        enter_private_root({os.fsdecode(EXPORT): tree})
    except OSError as error:
        raise Unservable(_NO_ROOT.get(error.errno or 0, str(error.strerror))) from error
    finally:
        os.close(tree)
    return os.open(EXPORT, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def settle_memory() -> None:
    """What is loaded by now stays: the collector need not look at it time and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _import_late() -> None:
    """What Python would import only when something goes wrong, by then out of reach."""
    import encodings.idna  # noqa: F401
    import linecache  # noqa: F401
    import traceback  # noqa: F401

    ctypes.CDLL(None)
