"""The conformance cases, paced, with harness, mount and watchers all an ordinary user's."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping

import pytest

from tests.conformance.script import all_cases
from tests.ordinary.user import as_user, environment, python

CASES = [str(case) for case in all_cases() if not case.needs_root]
SHORT = CASES[::16]
"""Of each subject some: their names begin with it."""
_SECONDS = 120
_LONG_SECONDS = 1500

Verdicts = Mapping[str, str]
"""For each case that was played how the streams differ; empty if they do not."""


def played(cases: list[str], seconds: float) -> Verdicts:
    result = subprocess.run(
        as_user([python(), "-m", "tests.ordinary.cases", *cases]),
        env=environment(),
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    lines = map(json.loads, result.stdout.splitlines())
    found = {line["case"]: "" if line["equal"] else line["how"] for line in lines}
    assert found or not result.returncode, result.stderr
    for case in set(cases) - set(found):
        found[case] = f"not played: {result.stderr}"
    return found


@pytest.fixture(scope="module")
def short(fuse: None) -> Verdicts:
    return played(SHORT, _SECONDS)


@pytest.fixture(scope="module")
def rest(fuse: None) -> Verdicts:
    return played([case for case in CASES if case not in SHORT], _LONG_SECONDS)


@pytest.mark.root
@pytest.mark.parametrize("case", SHORT)
def test_paced(case: str, short: Verdicts) -> None:
    assert not short[case], short[case]


@pytest.mark.root
@pytest.mark.long
@pytest.mark.parametrize("case", [case for case in CASES if case not in SHORT])
def test_paced_rest(case: str, rest: Verdicts) -> None:
    assert not rest[case], rest[case]
