"""How long an inode's marks live.

               ADDED                REMOVED_HERE
    UNMARKED ─────────► MARKED ◄──────────────────► LIMBO
       ▲                  │           ADDED           │
       │      EMPTIED, DELETED,             the same, │
       │      ENDED, UNMOUNTED         and PUSHED_OUT │
       └──────────────────┴───────────────────────────┘

An inode that this client removes while all its events come from a server is in LIMBO: the
reply to the removal may be here before the events of it, so its marks stay as they are, and
hear all that is told, until DELETE_SELF has been delivered, or the server says that nothing
more will come.  As many inodes as the owner's limit allows may be in limbo, the oldest is
pushed out.

Whatever leads to UNMARKED ends the marks that there still are: each group hears IGNORED.
"""

from __future__ import annotations

from enum import Enum, auto


class State(Enum):
    """What an inode's marks are in."""

    UNMARKED = auto()
    MARKED = auto()
    LIMBO = auto()


class Happening(Enum):
    """What changes that."""

    ADDED = auto()
    """A watch was placed or modified."""
    EMPTIED = auto()
    """The last mark went: removed, ONESHOT, or its group closed."""
    REMOVED_HERE = auto()
    """This client removed the inode; its events are under way."""
    DELETED = auto()
    """The inode is gone, and everybody has been told."""
    ENDED = auto()
    """The server has no mark any more."""
    PUSHED_OUT = auto()
    """Too many inodes are in limbo."""
    UNMOUNTED = auto()
    """The file system is gone."""


class Impossible(RuntimeError):
    """A happening that cannot be in this state: the caller is at fault."""


TABLE: dict[State, dict[Happening, State]] = {
    State.UNMARKED: {
        Happening.ADDED: State.MARKED,
    },
    State.MARKED: {
        Happening.ADDED: State.MARKED,
        Happening.EMPTIED: State.UNMARKED,
        Happening.REMOVED_HERE: State.LIMBO,
        Happening.DELETED: State.UNMARKED,
        Happening.ENDED: State.UNMARKED,
        Happening.UNMOUNTED: State.UNMARKED,
    },
    State.LIMBO: {
        Happening.ADDED: State.MARKED,
        Happening.EMPTIED: State.UNMARKED,
        Happening.REMOVED_HERE: State.LIMBO,
        Happening.DELETED: State.UNMARKED,
        Happening.ENDED: State.UNMARKED,
        Happening.PUSHED_OUT: State.UNMARKED,
        Happening.UNMOUNTED: State.UNMARKED,
    },
}


def after(state: State, happening: Happening) -> State:
    """The state that follows.  Raises Impossible."""
    try:
        return TABLE[state][happening]
    except KeyError:
        raise Impossible(f"{happening.name} while {state.name}") from None
