"""Files and directories that lose their names, and their end.

The export holds a descriptor of each node that the client knows.  Of what has no name left it
has to let go, or whoever watches SRC would hear of its end late, and our own source never.

What is done to a file through a descriptor is told to the directory in which it was opened,
by the name that it had there, also if that has gone.  Where nobody follows that directory the
file's own mark has to tell, which is widened for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from farwatch.events import Key, Mask
from farwatch.sources.inotify.drafts import DELETE, Draft
from farwatch.sources.inotify.heard import Heard
from farwatch.sources.inotify.nodes import Nodes
from farwatch.sources.inotify.tenants import Tenant, is_ghost

_ISDIR = int(Mask.ISDIR)
_DELETE_SELF = int(Mask.DELETE_SELF)


class Burial:
    """Lets go of nodes; ``widen`` has a file's content heard by its own mark."""

    def __init__(self, widen: Callable[[Key, int], None]) -> None:
        self.nodes: Nodes | None = None
        self._widen = widen

    def bury(self, counted: Iterable[Tenant], away: Iterable[Tenant]) -> set[Key]:
        """Let go of what has no name left; those nodes.

        ``counted`` are the nodes whose link count may be another than before the batch,
        ``away`` those that have gone where nobody follows.
        """
        if not counted and not away:
            return set()
        gone = {tenant.key for tenant in away if tenant.key is not None}
        keys = dict.fromkeys(tenant.key for tenant in counted if tenant.key is not None)
        keys.update(dict.fromkeys(gone))
        return {key for key in keys if self._is_dead(key, key in gone)}

    def _is_dead(self, node: Key, is_away: bool) -> bool:
        """Whether a node had no name left, and was let go of."""
        if self.nodes is None or is_ghost(node):
            return False
        try:
            fd = self.nodes.open_node(node)
        except OSError:
            return False
        try:
            links = os.fstat(fd).st_nlink
            if links != 1 or is_away:
                self._widen(node, fd)
        finally:
            os.close(fd)
        with suppress(OSError):
            return not links and self.nodes.let_die(node)
        return False


def is_end_of(one: Heard, nodes: set[Key]) -> bool:
    """Whether this is the end of one of the nodes."""
    return one.mark is not None and bool(one.mask & _DELETE_SELF) and one.mark.key in nodes


def end_of(one: Heard) -> Draft:
    """A DELETE_SELF that was heard."""
    assert one.mark is not None
    mask = _DELETE_SELF | (_ISDIR if one.mark.is_dir else 0)
    return Draft(mask, Tenant(one.mark.key), None, one.doings)


def with_ends(drafts: Sequence[Draft], ends: Iterable[Draft]) -> list[Draft]:
    """The drafts, and among them the ends: each before the DELETE of the same node."""
    by_key = {end.tenant.key: end for end in ends}
    found: list[Draft] = []
    for draft in drafts:
        if draft.mask & DELETE and draft.tenant.key in by_key:
            end = by_key.pop(draft.tenant.key)
            end.thread = draft.thread
            found.append(end)
        found.append(draft)
    return found + list(by_key.values())
