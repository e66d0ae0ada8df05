"""What must be so of a run when it is over, as functions that name what is not.

``truth``  is what native inotify would have said, in the order in which the disk saw it
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from farwatch.abi.fsnotify import Mode
from tests.simulator import facts
from tests.simulator.client import Client
from tests.simulator.native import Told, paired
from tests.simulator.world import Check, World

_NAMED = facts.NAMES | facts.MOVED_FROM | facts.MOVED_TO
_LAST = facts.DELETE_SELF | facts.IGNORED


def folded(events: Sequence[Told]) -> list[Told]:
    """Without those that are equal to the one before."""
    return [
        event
        for index, event in enumerate(events)
        if not index or events[index - 1].plain != event.plain
    ]


def _texts(events: Sequence[Told]) -> list[str]:
    return [f"{event} by {event.by}" for event in paired(list(events))]


def _differ(who: str, what: str, heard: Sequence[Told], truth: Sequence[Told]) -> list[str]:
    one, other = _texts(heard), _texts(truth)
    if one == other:
        return []
    return [f"{who} {what}: heard {one}", f"{who} {what}: truth {other}"]


def exactly(world: World, *, is_late: bool = False) -> list[str]:
    """Each client in remote mode hears the truth; one in merged mode its two halves of it.

    ``is_late``: the source may be read when a directory has gone.  It reports what happens to
    one without saying where that is, and then nobody knows: that is left out of both.
    """
    found: list[str] = []
    for client in world.clients:
        heard, truth = client.told(), world.truth[client.name].told
        if is_late:
            heard, truth = _placed(heard), _placed(truth)
        if client.mode is Mode.MERGED:
            found += halves(client, heard, truth)
        else:
            found += _differ(client.name, "all", heard, truth)
    return found


def _placed(events: Sequence[Told]) -> list[Told]:
    return folded([e for e in events if not (e.name and e.mask & facts.ISDIR) or e.mask & _NAMED])


def halves(client: Client, heard: Sequence[Told], truth: Sequence[Told]) -> list[str]:
    """What the client did itself, and what others did, each in its order; endings once."""
    found: list[str] = []
    parts: list[tuple[str, Callable[[Told], bool]]] = [
        ("own", lambda event: event.by == client.number),
        ("others'", lambda event: event.by not in (client.number, None)),
        ("endings", lambda event: bool(event.mask & facts.IGNORED)),
    ]
    for what, belongs in parts:
        one = folded([event for event in heard if belongs(event)])
        other = folded([event for event in truth if belongs(event)])
        # Where the halves meet is not where they met on the disk: another one may have been
        # equal to its neighbour, and not been queued.
        if not is_among(one, other) or {event.plain for event in other} - {e.plain for e in heard}:
            found += _differ(client.name, what, one, other)
    return found


def is_among(some: Sequence[Told], events: Sequence[Told]) -> bool:
    """Whether all of ``some`` are there, in this order."""
    rest = iter(events)
    return all(any(event.plain == other.plain for other in rest) for event in some)


def each_name(world: World) -> list[str]:
    """As ``exactly``, of a source that was read late, and so has merged what waited.

    Each name's own sequence of CREATE, DELETE and MOVED; each other kind if it happened
    at all; a watch's end once, and last.
    """
    found: list[str] = []
    for client in world.clients:
        heard, truth = client.told(), world.truth[client.name].told
        found += _per_name(client.name, heard, truth)
        found += ends_once(client.name, heard)
    return found


def _per_name(who: str, heard: Sequence[Told], truth: Sequence[Told]) -> list[str]:
    found: list[str] = []
    names = dict.fromkeys((event.watch, event.name) for event in (*heard, *truth))
    for watch, name in names:
        one, other = (
            [facts.kinds(e.mask) for e in events if (e.watch, e.name) == (watch, name)]
            for events in (heard, truth)
        )
        structure, real = ([k for k in kinds if _is_named(k)] for kinds in (one, other))
        if structure != real:
            found.append(f"{who} {watch}/{name.decode()}: heard {structure}, truth {real}")
        if set(one) != set(other):
            missing, wrong = set(other) - set(one), set(one) - set(other)
            found.append(f"{who} {watch}/{name.decode()}: missing {missing}, invented {wrong}")
    return found


def _is_named(kinds: str) -> bool:
    return any(word in kinds for word in ("CREATE", "DELETE", "MOVED"))


def ends_once(who: str, heard: Sequence[Told]) -> list[str]:
    """No watch is told its end twice, or hears anything after it."""
    found: list[str] = []
    ended: set[str] = set()
    for event in heard:
        if event.watch in ended:
            found.append(f"{who}: {event} after the end of its watch")
        if event.mask & facts.IGNORED:
            ended.add(event.watch)
    return found


def counted(events: Sequence[Told]) -> Counter[tuple[str, int, bytes]]:
    """How often each event was heard."""
    return Counter((event.watch, event.mask, event.name) for event in events)


def all_of(*checks: Check) -> Check:
    """Several of these.  Each must not take what another one reads."""
    return lambda world: [fault for check in checks for fault in check(world)]


def nothing_is_left(world: World) -> list[str]:
    """Of a watch that has ended nothing is kept: no mark at the server, no node pinned.

    As many marks are there as the clients have, and the clients' inodes are those.
    """
    found: list[str] = []
    for client in world.clients:
        nodes = client.side.session.view.nodes
        pinned = [node.id for node in nodes.by_id.values() if node.pins]
        marked = sorted(node.node for node in client.kernel.core.marked())
        if client.mode is not None and sorted(pinned) != marked:
            found.append(f"{client.name}: the server keeps {pinned}, the client watches {marked}")
    return found


__all__ = [
    "all_of",
    "counted",
    "each_name",
    "ends_once",
    "exactly",
    "folded",
    "is_among",
    "nothing_is_left",
]
