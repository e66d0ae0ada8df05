"""What the events before and after one say of it, and what the server was doing then."""

from __future__ import annotations

from collections.abc import Sequence

from farwatch.events import Key, Mask, Place
from farwatch.sources.inotify.doings import Doing
from farwatch.sources.inotify.heard import Heard

_ATTRIB = int(Mask.ATTRIB)
_MOVE_SELF = int(Mask.MOVE_SELF)


def is_count(last: Heard) -> bool:
    """Whether it may be a link count, and what explains that comes next."""
    return (
        last.mark is not None
        and not last.mark.is_dir
        and not last.name
        and bool(last.mask & _ATTRIB)
    )


def claimed(doings: tuple[Doing, ...], place: Place, kind: int) -> int:
    """The thread that has done this to a name; 0 for somebody else's."""
    for doing in doings:
        if doing.claims(place, kind):
            return doing.thread
    return 0


def made(doings: tuple[Doing, ...], place: Place) -> Key | None:
    """What the server has put at a name; None if it was not the server, or is not known."""
    for doing in doings:
        if place in doing.made:
            return doing.made[place]
    return None


def next_alone(heard: Sequence[Heard], index: int) -> Key | None:
    """The node of which the same is told next without a name, if it is."""
    if index + 1 >= len(heard):
        return None
    after = heard[index + 1]
    is_same = after.mark is not None and not after.name and after.mask == heard[index].mask
    return after.mark.key if is_same and after.mark is not None else None


def mover(heard: Sequence[Heard], index: int) -> Key | None:
    """The node of which MOVE_SELF follows a rename; before it a link count may be told."""
    for one in heard[index + 1 : index + 3]:
        if one.mark is None or one.name:
            return None
        if one.mask & _MOVE_SELF:
            return one.mark.key
    return None


def just_counted(heard: Sequence[Heard], index: int) -> Key | None:
    """The file whose link count was told right before: it is what the DELETE is of."""
    for one in reversed(heard[max(index - 2, 0) : index]):
        if one.mark is None or one.name:
            return None
        if one.mask & _ATTRIB and not one.mark.is_dir:
            return one.mark.key
    return None
