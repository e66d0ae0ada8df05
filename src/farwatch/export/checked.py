"""An export for clients whose callers nobody has checked: the kernel does, as for its own.

A client kernel checks its callers' access itself (``default_permissions``), so the export
acts as root for it.  A client in user space is not to be believed: here every operation is
done by a thread that *is* the caller (``linux.identity``), and so every check is the backing
file system's: modes and groups, access control lists, sticky directories, the rules for
owners, times and extended attributes, immutable files, protected hard links, quotas.

Left to be done here is what root's own ways would go around:

    by handle    open_by_handle_at(2) needs CAP_DAC_READ_SEARCH, and with it would check
                 nothing.  So a node is pinned (O_PATH, which gives no access) with the
                 capability and opened without.
    hard links   an O_PATH descriptor is linked by way of /proc, which needs no capability.

Whoever has a node's key may use it although a directory on its way is closed by now: like
somebody who has it open.
"""

from __future__ import annotations

import os

from farwatch.events import Key
from farwatch.export.anchor import PATH, fd_link
from farwatch.export.tree import Export
from farwatch.linux.files import AT_FDCWD, AT_SYMLINK_FOLLOW, linkat
from farwatch.linux.identity import Identity


class CheckedExport(Export):
    """An export for one thread, which becomes who it works for before each operation."""

    def __init__(self, mount_fd: int, identity: Identity) -> None:
        """``mount_fd`` as for Export; ``identity`` is the thread's."""
        super().__init__(mount_fd)
        self._identity = identity

    def _open_key(self, node: Key, flags: int) -> int:
        is_pin = bool(flags & os.O_PATH)
        with self._identity.raised:
            pin = super()._open_key(node, flags if is_pin else PATH | flags & os.O_DIRECTORY)
        if is_pin:
            return pin
        try:
            return os.open(fd_link(pin), flags & ~os.O_NOFOLLOW)
        finally:
            os.close(pin)

    def _give_name(self, node: Key, fd: int, directory_fd: int, name: bytes) -> None:
        """As Export's, without the capability that linkat(2) wants for AT_EMPTY_PATH."""
        linkat(AT_FDCWD, fd_link(fd), directory_fd, name, AT_SYMLINK_FOLLOW)
