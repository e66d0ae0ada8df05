"""Each rule of the core, switched off, is found out by the comparison with the kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from farwatch.abi.fsnotify import Event
from farwatch.client.fsnotify import core, queue
from farwatch.client.fsnotify.core import Fsnotify
from farwatch.client.fsnotify.mark import Mark, NodeId
from farwatch.client.fsnotify.masks import Asked
from farwatch.client.fsnotify.queue import InotifyEvent
from farwatch.events import Mask
from farwatch.linux.inotify import IN_EXCL_UNLINK, IN_MASK_ADD, IN_MASK_CREATE, IN_ONESHOT
from tests.client.fsnotify.both import Both, Operation, Unequal
from tests.client.fsnotify.disk import directory
from tests.client.fsnotify.operations import GROUPS, PREPARED, masked, seeded
from tests.client.fsnotify.scenarios import SCENARIOS
from tests.client.fsnotify.wire import Late, Remote, Wire

Patch = pytest.MonkeyPatch
SEEDS = range(30)

hears = Mark.hears
change = Mark.change
tell = Fsnotify._tell
dirent = Fsnotify._dirent
fsnotify = Fsnotify.fsnotify


def never_merged(patch: Patch) -> None:
    patch.setattr(queue, "_equal", lambda last, event: False)


def merged_by_cookie_too(patch: Patch) -> None:
    equal = queue._equal
    patch.setattr(queue, "_equal", lambda a, b: equal(a, b) and a.cookie == b.cookie)


def merged_whatever_the_name(patch: Patch) -> None:
    equal = queue._equal
    patch.setattr(queue, "_equal", lambda a, b: equal(a, b._replace(name=a.name)))


def merged_with_any_that_waits(patch: Patch) -> None:
    def put(self: queue.EventQueue, event: InotifyEvent) -> None:
        if event.mask & Mask.IGNORED or event not in self._events:
            self._append(event)

    patch.setattr(queue.EventQueue, "put", put)


def isdir_is_shown_with_self(patch: Patch) -> None:
    def both(self: Fsnotify, fact: Event, mask: int) -> None:
        tell(self, NodeId(fact.node, fact.generation), fact.mask, b"", _telling(fact))

    patch.setattr(Fsnotify, "_self", both)


def one_shot_stays(patch: Patch) -> None:
    _asked_without(patch, one_shot=False)


def unlinked_is_heard(patch: Patch) -> None:
    _asked_without(patch, exclude_unlinked=False)


def unlinked_is_never_heard(patch: Patch) -> None:
    def heard(self: Fsnotify, fact: Event, *, through_unlinked: bool | None = None) -> None:
        fsnotify(self, fact, through_unlinked=None)

    patch.setattr(Fsnotify, "fsnotify", heard)


def flags_are_only_added(patch: Patch) -> None:
    def kept(self: Mark, asked: Asked, *, after: int) -> None:
        flags = self.one_shot, self.exclude_unlinked
        change(self, asked, after=after)
        self.one_shot |= flags[0]
        self.exclude_unlinked |= flags[1]

    patch.setattr(Mark, "change", kept)


def mask_is_always_replaced(patch: Patch) -> None:
    _asked_without(patch, adds=False)


def node_is_told_first(patch: Patch) -> None:
    both = Fsnotify._both

    def turned(self: Fsnotify, fact: Event, mask: int, through: bool | None) -> None:
        both(self, fact._replace(parent=0, name=b""), mask, through)
        both(self, fact._replace(node=0), mask, through)

    patch.setattr(Fsnotify, "_both", turned)


def names_are_told_to_the_node(patch: Patch) -> None:
    def too(self: Fsnotify, fact: Event, mask: int) -> None:
        dirent(self, fact, mask)
        tell(self, NodeId(fact.node, fact.generation), mask, b"", _telling(fact))

    patch.setattr(Fsnotify, "_dirent", too)


def marks_outlive_the_inode(patch: Patch) -> None:
    def only(self: Fsnotify, fact: Event, mask: int) -> None:
        tell(self, NodeId(fact.node, fact.generation), mask, b"", _telling(fact))

    patch.setattr(Fsnotify, "_self", only)


def repeated_facts_are_heard(patch: Patch) -> None:
    patch.setattr(Fsnotify, "_is_new", lambda self, sequence: True)


def new_watches_hear_what_was(patch: Patch) -> None:
    def at_once(self: Mark, mask: int, *, sequence: int, through_unlinked: bool) -> bool:
        return hears(self, mask, sequence=0, through_unlinked=through_unlinked)

    patch.setattr(Mark, "hears", at_once)


def removal_ends_the_marks(patch: Patch) -> None:
    def ends(self: Fsnotify, node: NodeId) -> tuple[NodeId, ...]:
        self.forget_inode(node)
        return ()

    patch.setattr(Fsnotify, "enter_limbo", ends)


def nothing_is_heard_in_limbo(patch: Patch) -> None:
    def deaf(self: Fsnotify, node: NodeId, *rest: Any) -> None:
        if not self.in_limbo(node):
            tell(self, node, *rest)

    patch.setattr(Fsnotify, "_tell", deaf)


@pytest.mark.parametrize(
    "mutation",
    [
        never_merged,
        merged_by_cookie_too,
        merged_whatever_the_name,
        merged_with_any_that_waits,
        isdir_is_shown_with_self,
        one_shot_stays,
        unlinked_is_heard,
        unlinked_is_never_heard,
        flags_are_only_added,
        mask_is_always_replaced,
        node_is_told_first,
        names_are_told_to_the_node,
        marks_outlive_the_inode,
    ],
)
def test_of_what_is_done_here(mutation: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutation(monkeypatch)
    with pytest.raises(Unequal):
        _run(Wire, lambda operations: operations)


def test_of_what_a_server_repeats(monkeypatch: Patch) -> None:
    repeated_facts_are_heard(monkeypatch)
    with pytest.raises(Unequal):
        _run(Remote, lambda operations: masked(operations, drop=IN_EXCL_UNLINK))


@pytest.mark.parametrize(
    "mutation", [new_watches_hear_what_was, removal_ends_the_marks, nothing_is_heard_in_limbo]
)
def test_of_what_is_told_late(mutation: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutation(monkeypatch)
    dropped = IN_EXCL_UNLINK | IN_ONESHOT | IN_MASK_CREATE
    with pytest.raises(Unequal):
        _run(Late, lambda operations: masked(operations, drop=dropped, add=IN_MASK_ADD))


def _run(
    wire: Callable[[Fsnotify], Wire], prepare: Callable[[list[Operation]], list[Operation]]
) -> None:
    sequences = [*SCENARIOS.values(), *([*PREPARED, *seeded(seed, 1000)] for seed in SEEDS)]
    for sequence in sequences:
        operations = prepare(sequence)
        if wire is Late:
            operations = [each for each in operations if each[0] != "rm_watch"]
        with directory() as root, Both(root, GROUPS, wire=wire) as both:
            both.run(operations)


def _asked_without(patch: Patch, **fields: bool) -> None:
    def changed(self: Mark, asked: Asked, *, after: int) -> None:
        change(self, asked._replace(**fields), after=after)

    patch.setattr(Mark, "change", changed)


def _telling(fact: Event) -> Any:
    return core._Telling(fact)
