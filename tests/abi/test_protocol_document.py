"""The tables of docs/protocol.md against the C structs and the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from farwatch.abi import fsnotify, fsnotify_posted
from tests.abi.golden.fsnotify import CAPTURE, parse

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "protocol.md").read_text()
GOLDEN = parse(CAPTURE.read_text())

HEADING = re.compile(r"^#### `(\w+)`: (\d+) bytes$", re.MULTILINE)
FIELD = re.compile(r"^\| (\d+) \| (\d+) \| `(\w+)` \|", re.MULTILINE)
NUMBER = re.compile(r"^\| `(\w+)` \| `(0x[0-9a-f]+)` \|", re.MULTILINE)
CODE = re.compile(r"\b(\d) (REMOTE|MERGED|REMOVED|GONE|DROPPED|unknown|local|remote)\b")


def sections() -> dict[str, tuple[int, str]]:
    """The size that each struct's heading gives, and what stands below it."""
    parts = HEADING.split(TEXT)[1:]
    return {
        name: (int(size), re.split(r"^#", text, flags=re.MULTILINE)[0])
        for name, size, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    }


def test_every_struct_is_described() -> None:
    assert set(sections()) == set(GOLDEN.sizes)


@pytest.mark.parametrize("name", GOLDEN.sizes)
def test_layout(name: str) -> None:
    size, text = sections()[name]
    assert size == GOLDEN.sizes[name]
    described = [(field, int(offset), int(size)) for offset, size, field in FIELD.findall(text)]
    assert described == GOLDEN.fields[name]


def test_numbers() -> None:
    described = {name: int(value, 16) for name, value in NUMBER.findall(TEXT)}
    declared = {**vars(fsnotify), **vars(fsnotify_posted)}
    assert described == {name: declared[name] for name in described}
    assert len(described) == 11


def test_codes() -> None:
    described = {name.upper(): int(value) for value, name in CODE.findall(TEXT)}
    enums = (fsnotify.Mode, fsnotify.Source, fsnotify.Reason)
    # REMOTE is the name of a mode (1) and of an origin (2).
    known = {(member.name, int(member)) for enum in enums for member in enum}
    assert set(described.items()) <= known
    assert set(described) == {name for name, _ in known}


def test_the_largest_notification() -> None:
    largest = 16 + fsnotify.EVENT.size + 2 * fsnotify.NAME_MAX
    assert f"16 + 72 + 510 = {largest} bytes" in TEXT


def test_links_within_the_document() -> None:
    titles = re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]*)\)", TEXT)) == anchors


def test_tests_that_are_named_exist() -> None:
    named = re.findall(r"`(tests/[^`]*)`", TEXT)
    assert named
    assert all((ROOT / path).exists() for path in named)
