"""From a settled change to facts: what the kernel's ``fsnotify`` was told, in its order.

    link         ATTRIB of the node, then CREATE
    unlink       ATTRIB of the node; DELETE_SELF, if that was its last link and nobody had
                 it open; then DELETE
    rmdir        DELETE_SELF, then DELETE
    rename       MOVED_FROM, MOVED_TO, ATTRIB of what it replaced, MOVE_SELF; then
                 DELETE_SELF of what it replaced
    exchange     two renames

(vfs_link, d_delete_notify and vfs_rename of fs/namei.c, fsnotify_move of fsnotify.h.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from farwatch.events import Change, Key, Kind, Mask, Place

ATTRIB = int(Mask.ATTRIB)
CREATE = int(Mask.CREATE)
DELETE = int(Mask.DELETE)
DELETE_SELF = int(Mask.DELETE_SELF)
MOVED_FROM = int(Mask.MOVED_FROM)
MOVED_TO = int(Mask.MOVED_TO)
MOVE_SELF = int(Mask.MOVE_SELF)
RENAME = int(Mask.RENAME)
OVERFLOW = int(Mask.Q_OVERFLOW)

_CONTENT = {
    Kind.OPEN: int(Mask.OPEN),
    Kind.ACCESS: int(Mask.ACCESS),
    Kind.MODIFY: int(Mask.MODIFY),
    Kind.ATTRIB: ATTRIB,
    Kind.CLOSE_WRITE: int(Mask.CLOSE_WRITE),
    Kind.CLOSE_NOWRITE: int(Mask.CLOSE_NOWRITE),
}


class Fact(NamedTuple):
    """One kind, of a node, of a name in a directory, or of both.

    ``place``     of a DELETE_SELF: the name that went with it, if it was told so
    ``is_dir``    None: nobody has said
    ``replaced``  of a RENAME: the node that was at the new name
    """

    kind: int
    node: Key | None
    place: Place | None = None
    is_dir: bool | None = False
    new_place: Place | None = None
    replaced: Key | None = None
    thread: int = 0


def facts(changes: Sequence[Change], place_of: Callable[[Key], Place | None]) -> Iterator[Fact]:
    """What one batch of changes tells; ``place_of`` says where a directory is, by the disk."""
    deaths = _Deaths(changes)
    places = _places(changes)
    for index, change in enumerate(changes):
        kind, place, node, is_dir, _, _, _, thread = change
        content = _CONTENT.get(kind)
        if content is not None:
            if place is None and is_dir and node is not None:
                place = places[index] if index in places else place_of(node)
            yield Fact(content, node, place, is_dir, thread=thread)
        elif kind is Kind.DELETE:
            if not is_dir:
                yield Fact(ATTRIB, node, thread=thread)
            yield from deaths.before(index)
            if place is not None:
                yield Fact(DELETE, node, place, is_dir, thread=thread)
        elif kind is Kind.OVERFLOW:
            yield Fact(OVERFLOW, None)
        else:
            yield from _of_new_name(change)
        yield from deaths.after(index)


def _of_new_name(change: Change) -> Iterator[Fact]:
    kind, place, node, is_dir, new_place, other, linked, thread = change
    if kind is Kind.CREATE:
        if linked and not is_dir:
            yield Fact(ATTRIB, node, thread=thread)
        if place is not None:
            yield Fact(CREATE, node, place, is_dir, thread=thread)
    elif kind is Kind.RENAME:
        yield Fact(RENAME, node, place, is_dir, new_place, other, thread)
    elif kind is Kind.EXCHANGE:
        yield Fact(RENAME, node, place, is_dir, new_place, None, thread)
        yield Fact(RENAME, other, new_place, None, place, None, thread)


class _Deaths:
    """Where the deaths of a batch belong: at the last that is told of their nodes."""

    def __init__(self, changes: Sequence[Change]) -> None:
        self._before: dict[int, list[Fact]] = {}
        self._after: dict[int, list[Fact]] = {}
        deaths = {c.node: i for i, c in enumerate(changes) if c.kind is Kind.DEATH}
        if not deaths:
            return
        last: dict[Key | None, int] = {}
        for index, change in enumerate(changes):
            if change.kind is not Kind.DEATH:
                for node in (change.node, change.other):
                    if node in deaths:
                        last[node] = index
        for node, own in deaths.items():
            death = changes[own]
            at = last.get(node, own)
            fact = Fact(DELETE_SELF, node, None, death.is_dir, thread=death.thread)
            if at != own and changes[at].kind is Kind.DELETE and death.linked:
                self._before.setdefault(at, []).append(
                    fact._replace(place=changes[at].place, thread=changes[at].thread)
                )
            else:
                self._after.setdefault(at, []).append(fact)

    def before(self, index: int) -> Sequence[Fact]:
        """Those that belong into the removal at this index, before the name goes."""
        return self._before.get(index, ())

    def after(self, index: int) -> Sequence[Fact]:
        """Those that come right after the change at this index."""
        return self._after.get(index, ())


def _places(changes: Sequence[Change]) -> dict[int, Place | None]:
    """Where directories were, by the index of a change that does not say it.

    As far as what happens to their names later in the batch tells: the disk says where
    they are after all of it.
    """
    if not any(change.is_dir and change.place is None for change in changes):
        return {}
    found: dict[int, Place | None] = {}
    names: dict[Key | None, Place | None] = {}
    for index in range(len(changes) - 1, -1, -1):
        change = changes[index]
        if change.kind in (Kind.DELETE, Kind.RENAME, Kind.EXCHANGE):
            names[change.node] = change.place
            if change.other is not None and change.kind is Kind.EXCHANGE:
                names[change.other] = change.new_place
        elif change.is_dir and change.place is None and change.node in names:
            found[index] = names[change.node]
    return found
