"""Stages that outlive a test: kept by what was asked for, each made anew only after it has died."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from farwatch.linux.descriptors import Closable
from tests.stage import Stage

_LOG = 20_000
"""Characters of one stage's log that are shown, the last ones."""

K = TypeVar("K", bound=Hashable)
S = TypeVar("S", bound=Stage)


class Kept(Closable, Generic[K, S]):
    """Stages; owns them."""

    def __init__(self, make: Callable[[K], S]) -> None:
        self._make = make
        self._stages: dict[K, tuple[S, contextlib.ExitStack]] = {}

    def of(self, key: K) -> S:
        """The stage of this kind."""
        if key in self._stages and not self._stages[key][0].alive():
            self._stages.pop(key)[1].close()
        if key not in self._stages:
            stage, stack = self._make(key), contextlib.ExitStack()
            stack.enter_context(stage)
            self._stages[key] = stage, stack
        return self._stages[key][0]

    def log(self) -> str:
        """What all of them have said."""
        return "\n".join(stage.log()[-_LOG:] for stage, _ in self._stages.values())

    def close(self) -> None:
        """End them all."""
        with contextlib.ExitStack() as all_of_them:
            for _, stack in self._stages.values():
                all_of_them.push(stack)
            self._stages.clear()
