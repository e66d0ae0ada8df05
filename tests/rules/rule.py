"""A rule is tested twice: as it is, and switched off.

    @rule("counts_as_on_disk")
    def test_...(rule: Rule) -> None:
        with rule.scene() as scene:
            ...
        rule.expect(seen, held=..., harm=...)

Switched off, the same scenario must show the harm that the rule prevents; otherwise the
test would hold without the rule, and prove nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.rules.scene import Scene

AGENTS = pytest.mark.parametrize("agent", [(), ("by_thread",)], ids=["marked", "by thread"])
"""How replays are known: mutations of a scene."""


class Rule(NamedTuple):
    """``off`` names the mutations that switch the rule off; empty while it is on."""

    off: tuple[str, ...] = ()

    def scene(self, *more: str, furnish: Callable[[Path], object] = lambda _: None) -> Scene:
        """A mount on which the rule is on or off; ``more`` mutations set the scene.

        ``furnish`` makes what is in the source before it is mounted.
        """
        return Scene((*more, *self.off), furnish)

    def expect(self, seen: object, held: object, harm: object) -> None:
        """What is seen when the rule holds, and when it is switched off."""
        assert held != harm
        expected = harm if self.off else held
        assert seen == expected, f"seen:     {seen}\nexpected: {expected}"


def rule(*off: str) -> Callable[[Callable[..., Any]], Any]:
    """Runs a test with the rule and without; needs root."""

    def decorated(test: Callable[..., Any]) -> Any:
        both = pytest.mark.parametrize("rule", [Rule(), Rule(off)], ids=["on", "off"])
        return pytest.mark.root(both(test))

    return decorated
