"""No reader is answered what was so before a change, once its event has come.

Random histories of single changes, while others read the same tree all the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farwatch.session.settings import FILE_SECONDS
from tests.cache.changes import CHANGES, DIRECTORIES, NAMES, PATHS, Change
from tests.cache.ear import Ear
from tests.cache.truth import differences, reading, stale, warm, within, wrong_links
from tests.stage import FarwatchStage

ALL = (*DIRECTORIES, *PATHS, *(f"{path}/{name}" for path in PATHS for name in NAMES[:1]))
"""Every path of the tree, and some that never are: below names that are directories or files."""
LINK_SECONDS = 5.0
MODES = ("coherent", pytest.param("never", marks=pytest.mark.long))
"""With auto what was read a moment ago is believed for a second, event or not."""

histories = st.lists(CHANGES, max_size=25)


@pytest.fixture(scope="module", params=MODES)
def stage(request: pytest.FixtureRequest) -> Iterator[FarwatchStage]:
    with FarwatchStage(("--cache", request.param)) as made:
        yield made


def fresh_tree(stage: FarwatchStage) -> tuple[Path, Path]:
    name = stage.fresh()
    for directory in DIRECTORIES[1:]:
        (stage.acting / name / directory).mkdir()
    stage.settle()
    return stage.acting / name, stage.mnt / name


def play(stage: FarwatchStage, history: list[Change], readers: int) -> None:
    """Each change alone: it is made, its event comes, and then all is to be told as it is.

    What the client itself writes to a mapping is known to nobody but the file's own disk, while
    it is told the attributes for as long as an open file is believed.
    """
    source, client = fresh_tree(stage)
    with Ear(client) as ear, reading(client, ALL, readers):
        for change in history:
            warm(client, ALL)
            ear.hush()
            heard = change.make(client if change.is_local else source)
            if heard is None:
                continue
            if not change.is_local:
                ear.wait_for(heard)
            if change.is_local and change.what == "map":
                within(2 * FILE_SECONDS, lambda: stale(source, client, ALL))
            found = differences(source, client, ALL)
            assert not found, f"after {change} of {history}: {found}"
            within(LINK_SECONDS, lambda: wrong_links(source, client, ALL))


@pytest.mark.root
@given(history=histories)
@settings(max_examples=8, suppress_health_check=list(HealthCheck))
def test_with_readers(stage: FarwatchStage, history: list[Change]) -> None:
    play(stage, history, 2)


@pytest.mark.root
@given(history=histories)
@settings(max_examples=8, suppress_health_check=list(HealthCheck))
def test_with_a_warm_cache_alone(stage: FarwatchStage, history: list[Change]) -> None:
    play(stage, history, 0)


@pytest.mark.root
@pytest.mark.long
@given(history=st.lists(CHANGES, min_size=20, max_size=60))
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
def test_long_ones(stage: FarwatchStage, history: list[Change]) -> None:
    play(stage, history, 2)
