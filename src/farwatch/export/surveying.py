"""What names a directory holds, for whoever compares all of it with what was known."""

from __future__ import annotations

import errno
import os

from farwatch.events import Key
from farwatch.export.anchor import Anchor, failure

__all__ = ["Surveying"]

_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


class Surveying(Anchor):
    """Listing a directory at once, from any thread."""

    def names(self, directory: Key) -> list[bytes]:
        """All names but "." and "..", in no order.

        Raises OSError: ESTALE if the directory is gone, ENOTDIR if it is none.
        """
        fd = self._open_key(directory, _LIST)
        try:
            return [os.fsencode(name) for name in os.listdir(fd)]
        except FileNotFoundError:
            # Removed while it was open: that has no names, and is not there (ENOENT).
            raise failure(errno.ESTALE) from None
        finally:
            os.close(fd)
