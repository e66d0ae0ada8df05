"""Who holds a name, for how long: so that an event of a name is one of a node.

memory   what a name held after the last event of it that was read
told     else what the client was told that it holds
disk     else what is there now, if nothing has been read that says that it went
ghost    else nobody can know: a key that leads to nothing

The first of these that is known counts.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable

from farwatch.events import Key, Place

_GHOST = b"no file "
"""The first 8 bytes of a key that leads to nothing: no file system has this id."""
_MOST = 1 << 16
_NOT_KNOWN = b""

ELSEWHERE: Key = _GHOST + b"elsewhere"
"""The directory of a rename's other end, if nobody follows that."""


Told = tuple[Key | None, bool]
"""What the client was told that a name holds; and whether what is being read is later."""


class Tenant:
    """The node that holds a name for a while; ``key`` is None until it is known.

    ``is_new``: it has come in this batch, so that nobody can have followed it before.
    """

    __slots__ = ("is_new", "key")

    def __init__(self, key: Key | None = None, *, is_new: bool = False) -> None:
        self.key = key
        self.is_new = is_new


class Tenants:
    """The names of one source; ``told`` says what the client was told."""

    def __init__(self) -> None:
        self.told: Callable[[Place], Told] = lambda place: (None, False)
        self._memory: OrderedDict[Place, Key | None] = OrderedDict()
        self._left: OrderedDict[Place, Key] = OrderedDict()
        """What a name held that was removed last: it may be open still."""
        self._leaving: dict[Place, Tenant] = {}
        """The same, of the batch that is being read: who that was may not be known yet."""
        self._now: dict[Place, Tenant | None] = {}
        self._ghosts = itertools.count(1)

    def at(self, place: Place) -> Tenant:
        """Who holds a name at the event that is being read.

        If nobody does: who did before, and has it open still, for it is told by that name.
        """
        tenant = self._now.get(place)
        if tenant is not None:
            return tenant
        if place in self._now or self._memory.get(place, _NOT_KNOWN) is None:
            self._now[place] = None
            return self._leaving.get(place) or Tenant(self._left.get(place))
        self._now[place] = tenant = Tenant(self._remembered(place))
        return tenant

    def _remembered(self, place: Place) -> Key | None:
        key = self._memory.get(place)
        if key is not None:
            return key
        told, is_certain = self.told(place)
        return told if is_certain else None

    def left(self, place: Place) -> Key | None:
        """What was removed from the name last, if that is known."""
        leaving = self._leaving.get(place)
        return leaving.key if leaving is not None else self._left.get(place)

    def remove(self, place: Place) -> Tenant:
        """The name goes; who held it."""
        tenant = self.at(place)
        self._now[place] = None
        return tenant

    def leave(self, place: Place, tenant: Tenant) -> None:
        """The tenant has lost the name, and has not got another."""
        self._leaving[place] = tenant

    def perhaps(self, place: Place) -> Key | None:
        """What the client was told, perhaps too early, that the name holds."""
        return self.told(place)[0]

    def present(self, place: Place) -> Tenant | None:
        """The same, but None if that is nobody, or not known."""
        if place in self._now:
            return self._now[place]
        tenant = self.at(place)
        return tenant if tenant.key is not None else None

    def put(self, place: Place, tenant: Tenant | None) -> None:
        """Somebody holds the name from this event on, or nobody."""
        self._now[place] = tenant

    def unknown(self) -> list[Place]:
        """Names that are held now, by whom is not known: the disk can tell."""
        return [
            place
            for place, tenant in self._now.items()
            if tenant is not None and tenant.key is None and place.directory != ELSEWHERE
        ]

    def touched(self) -> dict[Place, Tenant | None]:
        """Who holds which name now, of those that were asked for in this batch."""
        return dict(self._now)

    def key_of(self, tenant: Tenant) -> Key:
        """The tenant's key; a ghost's if nobody can know it."""
        if tenant.key is None:
            tenant.key = _GHOST + b"%d" % next(self._ghosts)
        return tenant.key

    def close(self) -> None:
        """The batch is over: remember who holds what."""
        memory = self._memory
        for place, tenant in self._now.items():
            memory.pop(place, None)
            if tenant is None:
                memory[place] = None
            elif tenant.key is not None and not is_ghost(tenant.key):
                memory[place] = tenant.key
        self._now.clear()
        for place, tenant in self._leaving.items():
            if tenant.key is not None:
                self._left[place] = tenant.key
        self._leaving.clear()
        for remembered in (memory, self._left):
            while len(remembered) > _MOST:
                remembered.popitem(last=False)

    def clear(self) -> None:
        """Events were lost: nothing is known any more."""
        self._memory.clear()
        self._left.clear()
        self._leaving.clear()
        self._now.clear()


def is_ghost(key: Key) -> bool:
    """Whether a key stands for what nobody knows."""
    return key.startswith(_GHOST)


def elsewhere(cookie: int) -> Place:
    """The end of a rename that nobody follows."""
    return Place(ELSEWHERE, b"%d" % cookie)
