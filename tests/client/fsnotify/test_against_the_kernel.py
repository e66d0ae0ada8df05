"""The kernel is the specification: what its inotify hears, the core hears, event by event.

Random operations on a real directory, with watches of several groups placed, changed and
removed meanwhile, against the same operations on a file system in memory that raises the
facts of the kernel's hooks.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from farwatch.linux.inotify import IN_EXCL_UNLINK, IN_MASK_ADD, IN_MASK_CREATE, IN_ONESHOT
from tests.client.fsnotify.both import Both, Operation
from tests.client.fsnotify.disk import directory
from tests.client.fsnotify.operations import GROUPS, PREPARED, masked, seeded, sequences
from tests.client.fsnotify.scenarios import CHANGED_WHEN_UNLINKED, SCENARIOS
from tests.client.fsnotify.wire import Late, Remote


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenarios(name: str) -> None:
    with directory() as root, Both(root, GROUPS) as both:
        both.run(SCENARIOS[name])
        assert both.compared


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in CHANGED_WHEN_UNLINKED])
def test_scenarios_told_by_a_server(name: str) -> None:
    """What IN_EXCL_UNLINK keeps out is found from the facts alone."""
    with directory() as root, Both(root, GROUPS, wire=Remote) as both:
        both.run(SCENARIOS[name])
        assert both.compared


@settings(max_examples=300)
@given(sequences)
def test_hears_what_the_kernel_hears(operations: list[Operation]) -> None:
    with directory() as root, Both(root, GROUPS) as both:
        both.run([*PREPARED, *operations])


@pytest.mark.parametrize("seed", range(20))
def test_long_sequences(seed: int) -> None:
    with directory() as root, Both(root, GROUPS) as both:
        both.run([*PREPARED, *seeded(seed, 2000)])
        assert both.compared > 200


@pytest.mark.parametrize("seed", range(10))
def test_told_by_a_server(seed: int) -> None:
    """But for IN_EXCL_UNLINK: by which of its names a file was opened is not told."""
    with directory() as root, Both(root, GROUPS, wire=Remote) as both:
        both.run(masked([*PREPARED, *seeded(seed, 2000)], drop=IN_EXCL_UNLINK))
        assert both.compared > 200


@pytest.mark.parametrize("seed", range(10))
def test_told_late(seed: int) -> None:
    """New watches do not hear what was before them, removed inodes hear all that is left.

    What takes a watch away at once can, of course, not wait for what is under way.
    """
    operations = [each for each in seeded(seed, 2000) if each[0] != "rm_watch"]
    operations = masked(
        [*PREPARED, *operations], drop=IN_EXCL_UNLINK | IN_ONESHOT | IN_MASK_CREATE, add=IN_MASK_ADD
    )
    with directory() as root, Both(root, GROUPS, wire=Late) as both:
        both.run(operations)
        assert both.compared > 200
