"""Where the client's kernel has a directory at this moment, for an agent that opens by path.

What is told moves when a replay is *planned*: between that and the replay itself the kernel
still has the directory where it was before.  The first step on its way that moves or removes
a directory says where that is; without one it is where it was told to be.  What was never told
is where the disk has it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from stat import S_IFDIR

from farwatch.abi.control import HIDDEN_ID
from farwatch.abi.steps import ABOUT_NAMES, Op
from farwatch.events import Key, Place
from farwatch.export.nodes import ROOT_ID, Node
from farwatch.session.replay import AT, CREATES, Replay, Where
from farwatch.session.request import fail
from farwatch.session.view import View

_LONGEST = 3800
"""Bytes of a path that is told at once: less than PATH_MAX (limits.h)."""
_DEEPEST = 1 << 16
_NO_ID = 0
"""Of a directory that the client does not know."""


class Standing:
    """``on_disk`` says where a directory is there, None if it is nowhere in the export.

    Called with the view's lock held.
    """

    def __init__(self, view: View, on_disk: Callable[[Key], Place | None]) -> None:
        self._view = view
        self._on_disk = on_disk

    def path_of(self, node: Node) -> tuple[int, bytes]:
        """The node id of a directory above, and the path from there to ``node``.

        Not from the root if that would be too long: then where the directory above is has to
        be asked as well.  A directory that has no place has one in the hidden directory.
        Raises OSError ESTALE for one that is in a circle, which no file system can have for
        long.
        """
        if node.id in (ROOT_ID, HIDDEN_ID):
            return node.id, b"."
        names: list[bytes] = []
        room = _LONGEST
        above = node
        for _ in range(_DEEPEST):
            directory, name = self._place(above)
            room -= len(name) + 1
            if room < 0:
                break
            names.append(name)
            above = directory
            if above.id in (ROOT_ID, HIDDEN_ID):
                break
        else:
            raise fail(errno.ESTALE)
        if above.id == _NO_ID:
            above = self._view.nodes.obtain(above.key, above.mode)
        return above.id, b"/".join(reversed(names))

    def _place(self, node: Node) -> Where:
        for replay in self._view.moving.get(node.id, ()):
            if replay.done or replay.cancelled:
                continue
            where = replay.at if replay.node is node else replay.to
            if where is not None:
                return where
        if node.names:
            return node.names[0]
        place = self._on_disk(node.key) if not node.dead else None
        if place is None:
            return self._view.hidden, b"n%d" % node.id
        known = self._view.nodes.by_key.get(place.directory)
        # On the way through it the client's kernel looks it up itself: perhaps it never does.
        return known or Node(_NO_ID, place.directory, S_IFDIR), place.name


def held(view: View, directory: int, name: bytes) -> tuple[bool, Node | None]:
    """What the client's kernel holds under a name of which a replay is on its way.

    False if none is.  What looks, pins or opens does not change the name, and is not always known
    to be done: behind what does, it says nothing of what is held by then.
    """
    coming = [
        replay
        for replay in view.pending.get((directory, name), ())
        if not (replay.done or replay.cancelled)
    ]
    for replay in coming:
        if replay.op in ABOUT_NAMES:
            return True, _before(replay, directory, name)
    at = view.nodes.by_id.get(directory)
    if not coming or at is None:
        return False, None
    return True, view.nodes.child(at, name)


def _before(replay: Replay, directory: int, name: bytes) -> Node | None:
    if replay.which(directory, name) == AT:
        return None if replay.op in CREATES else replay.node
    return replay.other if replay.op == Op.RENAME else None
