"""What is around the parts of one client (assembly.py): it was there before, and outlives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from farwatch.events import Key
from farwatch.export.backing import BackingFiles
from farwatch.export.tree import Export
from farwatch.session.agents import KnownThreads
from farwatch.session.planning import Disk
from farwatch.session.settings import Settings


class Lasting(NamedTuple):
    """What a session has from its beginning to its end.

    ``access_mode``  how a thread, which is none of the server's, has a node open, if known
    ``known``        threads of agents that have no mark
    ``unheard``      first bytes of the keys of nodes of which nothing is heard: these change
    """

    export: Export
    settings: Settings
    disk: Disk
    access_mode: Callable[[int, Key], int | None]
    backing: BackingFiles | None
    known: KnownThreads
    unheard: set[bytes]


class Surroundings(NamedTuple):
    """What a client's parts ask, and whom they tell; see the attributes of ``Session``.

    ``on_destroy`` is told of a DESTROY, with the view's lock held.
    """

    is_behind: Callable[[], bool]
    must_catch_up: Callable[[], bool]
    client_of: Callable[[int], int]
    is_written_elsewhere: Callable[[Key], bool]
    on_written: Callable[[int, Key], None]
    on_asked: Callable[[], None]
    on_doubt: Callable[[], None]
    on_prunable: Callable[[], None]
    on_destroy: Callable[[], None]
