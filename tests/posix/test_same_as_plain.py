"""The same random calls on a mount and in a plain directory, by root and by several users.

Each call must return the same or fail with the same errno, and at the end the mount, what it
shows, and the plain directory must be the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from tests.posix import drawn
from tests.posix.actor import Actor
from tests.posix.conftest import Pairs
from tests.posix.trees import differences, furnish
from tests.stage import FarwatchStage

pytestmark = pytest.mark.root


class Trees(RuleBasedStateMachine):
    """Two trees, and users who work in both."""

    def __init__(self, pairs: Pairs, actors: list[Actor]) -> None:
        super().__init__()
        self._pair = pairs.pair()
        self._actors = actors

    @initialize()
    def furnished(self) -> None:
        # Through the mount: whatever is told of what is done beside it is not tested here.
        furnish(self._pair.mnt)
        furnish(self._pair.plain)
        for actor in self._actors:
            actor.begin(self._pair.mnt, self._pair.plain)
            for arguments in drawn.OPENED:
                assert actor.call("open", *arguments)[0] == ("returned", None)

    def _do(self, user: int, call: drawn.Call) -> None:
        name, arguments = call
        ours, theirs = self._actors[user].call(name, *arguments)
        assert ours == theirs

    def teardown(self) -> None:
        for actor in self._actors:
            actor.end()
        try:
            if self._pair.src.exists():
                # The mount, what it shows, and the plain directory.
                assert not list(differences(self._pair))
        finally:
            shutil.rmtree(self._pair.mnt, ignore_errors=True)
            shutil.rmtree(self._pair.plain, ignore_errors=True)


class PassedThrough(Trees):
    """Reads and writes go past the server: so no file that is open gets set-id bits."""

    @rule(user=drawn.users, call=drawn.calls(gives_set_id=False))
    def call(self, user: int, call: drawn.Call) -> None:
        self._do(user, call)


class Served(Trees):
    """The server sees all that is done."""

    @rule(user=drawn.users, call=drawn.calls(gives_set_id=True))
    def call(self, user: int, call: drawn.Call) -> None:
        self._do(user, call)


def _act(kind: type[Trees], pairs: Pairs, actors: list[Actor], examples: int) -> None:
    class Here(kind):  # type: ignore[valid-type, misc]
        def __init__(self) -> None:
            super().__init__(pairs, actors)

    run_state_machine_as_test(
        Here, settings=settings(max_examples=examples, stateful_step_count=60, deadline=None)
    )


@pytest.fixture
def served() -> Iterator[Pairs]:
    with FarwatchStage(["--cache", "never"]) as stage:
        stage.acting.parent.chmod(0o755)
        yield Pairs(stage)


def test_random_calls(pairs: Pairs, actors: list[Actor]) -> None:
    _act(PassedThrough, pairs, actors, 15)


def test_random_calls_past_no_server(served: Pairs, actors: list[Actor]) -> None:
    _act(Served, served, actors, 10)


@pytest.mark.long
def test_many_random_calls(pairs: Pairs, actors: list[Actor]) -> None:
    _act(PassedThrough, pairs, actors, 1000)


@pytest.mark.long
def test_many_random_calls_past_no_server(served: Pairs, actors: list[Actor]) -> None:
    _act(Served, served, actors, 1000)
