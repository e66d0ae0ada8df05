"""A stage that delivers wrongly: what every comparison must find."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.conformance.client import Client, LocalClient, RawEvent
from tests.stage import NativeStage


class BrokenClient(LocalClient):
    """Damages what a true client reads."""

    def __init__(self, watching: str, damage: Callable[[list[RawEvent]], None]) -> None:
        super().__init__(watching, "broken")
        self._damage = damage

    def wait_for_sentinel(self, name: str, groups: Sequence[str]) -> None:
        super().wait_for_sentinel(name, groups)
        self._damage(self.events)


class BrokenStage(NativeStage):
    """A native stage that delivers wrongly."""

    name = "broken"

    def __init__(self, damage: Callable[[list[RawEvent]], None]) -> None:
        super().__init__()
        self._damage = damage

    def _make_client(self) -> Client:
        return BrokenClient(self.watching, self._damage)
