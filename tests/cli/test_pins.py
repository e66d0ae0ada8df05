"""One version of everything: what pyproject.toml asks for is what .venv is made of."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distributions
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def pins(lines: list[str]) -> dict[str, str]:
    found = {}
    for line in lines:
        name, version = re.fullmatch(r"([\w.-]+)==([\w.+-]+)", line).groups()  # type: ignore[union-attr]  # an unpinned line fails here
        found[re.sub(r"[-_.]+", "-", name).lower()] = version
    return found


def locked() -> dict[str, str]:
    lines = (PROJECT / "requirements/dev.txt").read_text().splitlines()
    return pins([line for line in lines if not line.startswith("#")])


def test_every_requirement_is_locked_at_its_pin() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    wanted = project["build-system"]["requires"] + project["project"]["dependencies"]
    for extra in project["project"]["optional-dependencies"].values():
        wanted += extra
    assert pins(wanted).items() <= locked().items()


def test_the_lock_is_complete() -> None:
    installed = {
        re.sub(r"[-_.]+", "-", distribution.name).lower(): distribution.version
        for distribution in distributions()
    }
    for own in ("farwatch", "pip"):
        installed.pop(own, None)
    assert installed == locked()
