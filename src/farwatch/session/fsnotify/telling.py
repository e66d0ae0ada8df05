"""Which facts a client is told, and as what.

    names (CREATE, DELETE, RENAME)   to the mark of the directory; RENAME has two, and is
                                     MOVE_SELF to the node's own
    DELETE_SELF, a link count        to the node's mark
    all others                       to the directory's, with the name, and to the node's

What a client of the MERGED mode has done itself it is not told.  DELETE_SELF is its own
doing if it has taken the last name: who was the last to close the file does not matter.

Of a directory DELETE_SELF is said to be by whoever removed it: the last to let go of it may
have been one who looked at it, the server among them.

While it is being answered that it has changed a name (``begin_answering``), what happened
after that change is not told yet: it raises its own events at the answer.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from stat import S_ISDIR

from farwatch.abi.fsnotify import Dialect, Ended, Event, Mode, Reason, Source
from farwatch.events import Change, Key, Kind, Mask, Place
from farwatch.export.nodes import Node
from farwatch.session.fsnotify import facts as kinds
from farwatch.session.fsnotify.facts import Fact, facts
from farwatch.session.fsnotify.marks import Marks
from farwatch.session.fsnotify.outbox import Outbox
from farwatch.session.fsnotify.told import Told
from farwatch.session.view import View

_ISDIR = int(Mask.ISDIR)
_NAMES = kinds.CREATE | kinds.DELETE | kinds.RENAME
_MOST_REMOVED = 4096


class Telling:
    """Tells one client; see the top of the file.

    ``client``     its number
    ``client_of``  the number of the client that a thread serves, 0 for none
    ``place_of``   where a directory is, by the disk
    ``status``     of an inode, by the disk; None if it is gone
    """

    def __init__(
        self,
        view: View,
        marks: Marks,
        outbox: Outbox,
        client: int,
        client_of: Callable[[int], int],
        place_of: Callable[[Key], Place | None],
        status: Callable[[Key], os.stat_result | None],
    ) -> None:
        self._view = view
        self._nodes = view.nodes
        self._marks = marks
        self._outbox = outbox
        self._client = client
        self._client_of = client_of
        self._place_of = place_of
        self._status = status
        self._cookie = 0
        self._removed: OrderedDict[Key, tuple[Source, int]] = OrderedDict()
        """Who took a node's name last."""
        self._is_answering = False
        self._own_place: Place | None = None
        self.told = Told(view.nodes)
        self.mode: Mode | None = None
        """None: nothing is told yet."""

    def tell(self, changes: Sequence[Change]) -> None:
        """One settled batch."""
        for fact in facts(changes, self._place_of):
            self._tell(fact)
        for change in changes:
            self.told.follow(change)
            self._follow(change)

    def begin_answering(self) -> None:
        """The client has asked for a change of names, and is answered at ``end_answering``."""
        self._is_answering, self._own_place = True, None

    def end_answering(self) -> None:
        """The reverse."""
        self._is_answering = False
        self._outbox.go_on()

    def end(self, node: Node, reason: Reason) -> None:
        """Takes the node's mark away, if it has one, and says so."""
        if self._marks.of(node):
            ended = Ended(node.id, self._nodes.generation_of(node), reason)
            self._outbox.ended(ended)
            self._marks.remove(node)

    def die(self, node: Node, origin: Source = Source.UNKNOWN, client: int = 0) -> None:
        """The inode is gone: the last that is told of it, to its mark."""
        if self._marks.of(node) & kinds.DELETE_SELF:
            self._send(
                Event(
                    kinds.DELETE_SELF | (_ISDIR if node.is_dir else 0),
                    node.id,
                    generation=self._nodes.generation_of(node),
                    source=origin,
                    client=client,
                ),
                to_node=True,
            )
        self.end(node, Reason.GONE)

    # One fact --------------------------------------------------------------------

    def _tell(self, fact: Fact) -> None:
        source, client = self._origin(fact.thread)
        is_own = source is Source.LOCAL
        kind = fact.kind
        if is_own and self._is_answering and self.mode is Mode.MERGED:
            self._stop_behind(fact)
        if kind == kinds.OVERFLOW:
            self._lose()
            return
        if kind == kinds.DELETE_SELF:
            self._die(fact, (source, client))
            return
        self._note_removal(fact, (source, client))
        if self.mode is None or (self.mode is Mode.MERGED and is_own):
            return
        if kind == kinds.RENAME:
            self._rename(fact, source, client)
            return
        directory = self._marked(fact.place, kind)
        node = self._known(fact.node)
        is_of_name = kind in (kinds.CREATE, kinds.DELETE)
        to_node = not is_of_name and bool(self._marks.of(node) & kind)
        if directory is None and not to_node:
            return
        name = fact.place.name if fact.place is not None and directory is not None else b""
        event = self._event(fact, node, source, client)
        if directory is not None:
            event = event._replace(
                parent=directory.id,
                name=name,
                parent_generation=self._nodes.generation_of(directory),
            )
        self._send(event, to_parent=directory is not None, to_node=to_node)

    def _event(self, fact: Fact, node: Node | None, source: Source, client: int) -> Event:
        is_dir = node.is_dir if node is not None else fact.is_dir
        if is_dir is None and fact.node is not None:
            status = self._status(fact.node)
            is_dir = status is not None and S_ISDIR(status.st_mode)
        return Event(
            fact.kind | (_ISDIR if is_dir else 0),
            node.id if node is not None else 0,
            generation=self._nodes.generation_of(node) if node is not None else 0,
            source=source,
            client=client,
        )

    def _rename(self, fact: Fact, source: Source, client: int) -> None:
        """Both halves in one, or in two and MOVE_SELF alone for a dialect that has no RENAME.

        The kernel tells the count of what was replaced before MOVE_SELF, which a whole
        RENAME ends with: where somebody may hear both, MOVE_SELF comes by itself.
        """
        old = self._marked(fact.place, kinds.MOVED_FROM)
        new = self._marked(fact.new_place, kinds.MOVED_TO)
        node = self._known(fact.node)
        replaced = self._known(fact.replaced)
        is_self = bool(self._marks.of(node) & kinds.MOVE_SELF)
        counts = bool(self._marks.of(replaced) & kinds.ATTRIB)
        self._cookie = self._cookie % 0xFFFF_FFFF + 1
        whole = self._event(fact, node, source, client)._replace(cookie=self._cookie)
        if old is not None and fact.place is not None:
            whole = whole._replace(
                parent=old.id,
                name=fact.place.name,
                parent_generation=self._nodes.generation_of(old),
            )
        if new is not None and fact.new_place is not None:
            whole = whole._replace(
                new_parent=new.id,
                new_name=fact.new_place.name,
                new_parent_generation=self._nodes.generation_of(new),
            )
        if self._outbox.dialect is not Dialect.CURRENT:
            self._halves(whole, is_self=is_self, replaced=replaced if counts else None)
            return
        splits = counts and is_self
        if old is not None or new is not None:
            self._send(whole._replace(node=0, generation=0) if splits else whole, to_parent=True)
        if replaced is not None and counts:
            self._count(replaced, whole)
        if is_self and (splits or (old is None and new is None)):
            self._move_self(whole)

    def _halves(self, whole: Event, *, is_self: bool, replaced: Node | None) -> None:
        flags = whole.mask & _ISDIR
        half = whole._replace(new_parent=0, new_name=b"", new_parent_generation=0)
        if whole.parent:
            self._send(half._replace(mask=kinds.MOVED_FROM | flags), to_parent=True)
        if whole.new_parent:
            half = half._replace(
                mask=kinds.MOVED_TO | flags,
                parent=whole.new_parent,
                name=whole.new_name,
                parent_generation=whole.new_parent_generation,
            )
            self._send(half, to_parent=True)
        if replaced is not None:
            self._count(replaced, whole)
        if is_self:
            self._move_self(whole)

    def _count(self, node: Node, cause: Event) -> None:
        """A link count that changed by what ``cause`` tells."""
        self._send(
            Event(
                kinds.ATTRIB | (_ISDIR if node.is_dir else 0),
                node.id,
                generation=self._nodes.generation_of(node),
                source=cause.source,
                client=cause.client,
            ),
            to_node=True,
        )

    def _move_self(self, whole: Event) -> None:
        self._send(
            Event(
                kinds.MOVE_SELF | (whole.mask & _ISDIR),
                whole.node,
                generation=whole.generation,
                source=whole.source,
                client=whole.client,
            ),
            to_node=True,
        )

    def _die(self, fact: Fact, origin: tuple[Source, int]) -> None:
        node = self._known(fact.node)
        # Of a rename it may be unknown what it replaced: then the client is told once too often
        # of what it has ended itself, and does not hear it.
        removed = self._removed.pop(fact.node, None) if fact.node is not None else None
        if node is None:
            return
        node.dead = True
        remover = origin if fact.place is not None else removed
        if self.mode is Mode.MERGED and remover is not None and remover[0] is Source.LOCAL:
            self.end(node, Reason.GONE)
        else:
            self.die(node, *(remover if node.is_dir and remover is not None else origin))

    def _lose(self) -> None:
        """The source lost events: also deaths, which would never be told."""
        self._removed.clear()
        if not len(self._marks):
            return
        self._send(Event(kinds.OVERFLOW), to_node=True)
        for node in self._marks.nodes():
            if self._status(node.key) is None:
                self.die(node)

    def _send(self, event: Event, *, to_parent: bool = False, to_node: bool = False) -> None:
        self._outbox.event(event, to_parent=to_parent, to_node=to_node)

    def _stop_behind(self, fact: Fact) -> None:
        """The client's own change of a name: what is told now belongs after its answer."""
        is_last_name = fact.kind == kinds.DELETE_SELF and fact.place is not None
        if not (fact.kind & _NAMES or is_last_name):
            return
        if fact.place != self._own_place:
            self._outbox.stop()
        # Of DELETE_SELF and the DELETE after it, the first.
        self._own_place = fact.place if is_last_name else None

    # What is known ---------------------------------------------------------------

    def _origin(self, thread: int) -> tuple[Source, int]:
        if not thread:
            return Source.UNKNOWN, 0
        client = self._client_of(thread)
        return (Source.LOCAL if client == self._client else Source.REMOTE), client

    def _known(self, key: Key | None) -> Node | None:
        """The node, if the client was told of it and has not forgotten it."""
        node = self._nodes.by_key.get(key) if key is not None else None
        return node if node is not None and (node.lookups or node.pins) else None

    def _marked(self, place: Place | None, kind: int) -> Node | None:
        """The directory of a name, if its mark asks for a kind."""
        directory = self._nodes.by_key.get(place.directory) if place is not None else None
        return directory if self._marks.of(directory) & kind else None

    def _note_removal(self, fact: Fact, origin: tuple[Source, int]) -> None:
        key = fact.replaced if fact.kind == kinds.RENAME else fact.node
        if key is None or fact.kind not in (kinds.RENAME, kinds.DELETE):
            return
        self._removed[key] = origin
        if len(self._removed) > _MOST_REMOVED:
            self._removed.popitem(last=False)

    # The tree --------------------------------------------------------------------

    def _follow(self, change: Change) -> None:
        """The names by which files are opened; what the client has done is known there."""
        if self._origin(change.thread)[0] is Source.LOCAL:
            return
        kind = change.kind
        if kind is Kind.CREATE:
            self._name(change.place, change.node)
        elif kind is Kind.DELETE:
            self._unname(change.place, change.node)
        elif kind is Kind.RENAME:
            self._unname(change.place, change.node)
            self._name(change.new_place, change.node)
        elif kind is Kind.EXCHANGE:
            self._unname(change.place, change.node)
            self._unname(change.new_place, change.other)
            self._name(change.new_place, change.node)
            self._name(change.place, change.other)

    def _name(self, place: Place | None, key: Key | None) -> None:
        directory = self._nodes.by_key.get(place.directory) if place is not None else None
        node = self._known(key)
        if place is not None and directory is not None and directory.is_dir and node is not None:
            self._nodes.tell(directory, place.name, node)

    def _unname(self, place: Place | None, key: Key | None) -> None:
        directory = self._nodes.by_key.get(place.directory) if place is not None else None
        if place is None or directory is None:
            return
        node = self._nodes.child(directory, place.name)
        if node is not None and node.key == key:
            self._nodes.untell(directory, place.name)
