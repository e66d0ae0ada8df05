"""Whether two watchers heard the same."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from farwatch.cli.demo.observer import Heard
from farwatch.events import Mask

Said = tuple[int, str, int]
"""Mask, name, and the number of the rename that the event is half of (0: none)."""


def streams(events: Sequence[Heard]) -> dict[str, list[Said]]:
    """What each watch said, in order.

    Identical neighbours are one, because inotify folds those that wait together
    (inotify(7)); cookies, which are only unique, become 1, 2, 3 …
    """
    numbers: dict[int, int] = {0: 0}
    said: dict[str, list[Said]] = {}
    for event in events:
        number = numbers.setdefault(event.cookie, len(numbers))
        said.setdefault(event.watch, []).append((event.mask, event.name, number))
    return {watch: [item for item, _ in groupby(items)] for watch, items in said.items()}


def kinds(events: Sequence[Heard]) -> list[str]:
    """The events' kinds as words, in order, identical neighbours folded."""
    words = (str(Mask(event.mask & ~Mask.ISDIR).name) for event in events)
    return [word for word, _ in groupby(words)]


def describe(events: Sequence[Heard]) -> list[str]:
    """One line an event, for a reader who looks for a difference."""
    return [
        f"{watch}: {Mask(mask).name} {name}".rstrip() + (f" (rename {number})" if number else "")
        for watch, items in streams(events).items()
        for mask, name, number in items
    ]
