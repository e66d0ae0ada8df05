"""A name in a directory of the mount: opened, or asked for again."""

from __future__ import annotations

import errno
import os

from farwatch.linux import files

PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def open_name(directory: int, name: bytes, flags: int, resolve: int) -> int:
    """A descriptor of what is there, the caller's; ``resolve`` as of ``Marks``.

    Raises OSError.
    """
    if resolve:
        return files.openat2(directory, name, flags, resolve=resolve)
    return os.open(name, flags, dir_fd=directory)


def ask_again(directory: int, name: bytes) -> None:
    """Makes the kernel ask the server for a name that it has cached.

    An exclusive creation always asks; the server answers with the node that is
    there, so it fails with EEXIST and makes no event.  Raises OSError.
    """
    try:
        os.mknod(name, 0o600, 0, dir_fd=directory)
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise
