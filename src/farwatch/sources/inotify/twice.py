"""What is told twice: by a directory, with a name, and by the node itself, without one.

The kernel tells the directory first.  The second telling is the same event, and says which
node had the name.
"""

from __future__ import annotations

from collections import deque

from farwatch.events import Key
from farwatch.sources.inotify.drafts import Draft

_PAIRED_WITHIN = 4
"""What a directory is told comes again without a name so many events later, at most: other
processors' events may come between."""


class Twice:
    """What directories were told last, of one source."""

    def __init__(self) -> None:
        self.heard = 0
        """How many events were heard so far: whoever hears one counts it."""
        self._recent: deque[tuple[int, bool, Draft]] = deque(maxlen=_PAIRED_WITHIN)
        """When, whether it is told again without a name, and what."""

    def note(self, draft: Draft, *, is_twice: bool) -> None:
        """A directory was told this; ``is_twice`` if the node's own mark tells it as well."""
        self._recent.append((self.heard, is_twice, draft))

    def is_told(self, mask: int, key: Key) -> bool:
        """Whether this was told of the node by name; that counts for one telling of its own."""
        for entry in reversed(self._recent):
            when, is_twice, draft = entry
            if draft.mask != mask or self.heard - when > _PAIRED_WITHIN:
                continue
            tenant = draft.tenant
            if tenant.key is None and not tenant.is_new and self.heard - when == 1:
                tenant.key = key
            elif tenant.key != key or not is_twice:
                continue
            self._recent.remove(entry)
            return True
        return False

    def clear(self) -> None:
        """Events were lost."""
        self._recent.clear()
