"""The language of the cases: one file, first the script, then the native events.

    # What the case shows.
    write d/x hello             a change by the remote side (any command of Actor)
    watch dir d CHANGES         the client watches d; the watch is called "dir"
    watch two@b d ALL|ONESHOT   … in a second inotify instance, "b"
    unlink d/x
    fails ENOENT unlink d/x     the same change must fail, with that errno
    try unlink d/x              … may fail; natively and here alike
    local mkdir d/sub           a change that the client makes itself
    look d/sub                  lstat by the client; the answer is compared
    list d                      directory listing by the client, compared
    peek d/x                    content as the client reads it, compared
    unwatch dir
    sync                        wait until all events have arrived
    ---
    dir: DELETE x
    ? look d/sub: drwxr-xr-x

``CHANGES`` is everything but OPEN, ACCESS, CLOSE_NOWRITE; ``ALL`` is everything.
Words are split as a shell does it.  A path beginning with ``^`` lies outside the
export, on the same file system.  Lines that begin with ``?`` are the client's
answers.  ``# full: no`` leaves the case out at full speed, ``# full: end`` compares its
end only; a reason follows.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.conformance.stream import (
    READING,
    Comparison,
    Event,
    Outcome,
    compare_end,
    compare_full,
    compare_nothing,
    mask_of,
)

CASES = Path(__file__).with_name("cases")
QUESTIONS = frozenset({"look", "list", "peek"})
CLIENT = QUESTIONS | {"watch", "unwatch", "local"}
"""Commands that the client carries out."""


class Step(NamedTuple):
    """One line of a script."""

    verb: str
    """watch, unwatch, look, list, peek, local, sync, or change (by the remote side)."""
    words: tuple[str, ...]
    allowed: str = ""
    """Errno's name that must come; ``*`` for: whatever happens."""

    def __str__(self) -> str:
        words = shlex.join(self.words)
        prefix = {"": "", "*": "try "}.get(self.allowed, f"fails {self.allowed} ")
        return (self.verb + " " if self.verb != "change" else "") + prefix + words


class Watch(NamedTuple):
    """The arguments of a ``watch``."""

    name: str
    group: str
    path: str
    mask: int


def watch_of(words: tuple[str, ...]) -> Watch:
    """``name[@group] path MASK``.  Raises ValueError or KeyError for anything else."""
    name, path, mask = words
    name, _, group = name.partition("@")
    return Watch(name, group or "a", path, mask_of(mask))


def _take_allowed(words: list[str]) -> str:
    """Take ``try`` or ``fails ERRNO`` from the front; what ``Step.allowed`` says of it."""
    if words and words[0] == "try":
        words.pop(0)
        return "*"
    if words and words[0] == "fails":
        words.pop(0)
        return words.pop(0)
    return ""


def parse_step(line: str) -> Step:
    words = shlex.split(line)
    allowed = _take_allowed(words)
    verb = words.pop(0) if words[0] in CLIENT or words[0] == "sync" else "change"
    allowed = allowed or _take_allowed(words)
    if verb == "watch":
        watch_of(tuple(words))
    return Step(verb, tuple(words), allowed)


class Case(NamedTuple):
    """One file of ``cases``."""

    path: Path
    script: str
    """The script's text, comments and all."""
    steps: tuple[Step, ...]
    expected: tuple[str, ...]
    """Events and answers as lines."""

    @property
    def full(self) -> str:
        """How to compare it at full speed: ``no``, ``end``, or ``yes``."""
        found = re.search(r"^# full: (\w+)", self.script, re.MULTILINE)
        return found[1] if found else "yes"

    @property
    def needs_root(self) -> bool:
        """Whether an ordinary user's system calls would fail natively, too."""
        return any(
            step.words[0] == "chown" or step.words[-1] in {"char", "block"}
            for step in self.steps
            if step.words
        )

    def __str__(self) -> str:
        return self.path.stem


def _content(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def parse_script(text: str, origin: str = "script") -> tuple[Step, ...]:
    """The steps of a script.  Raises ValueError that names the line that is wrong."""
    steps = []
    for number, line in enumerate(text.splitlines(), 1):
        if _content(line):
            try:
                steps.append(parse_step(line))
            except (ValueError, KeyError, IndexError) as error:
                raise ValueError(f"{origin}:{number}: {line!r}: {error}") from None
    return tuple(steps)


def parse(path: Path) -> Case:
    """Read a case.  Raises ValueError that names the line that is wrong."""
    script, _, expected = path.read_text().partition("\n---\n")
    steps = parse_script(script, str(path))
    return Case(path, script, steps, tuple(filter(_content, expected.splitlines())))


def compare_at_full_speed(case: Case) -> Comparison:
    """How two runs of a case are compared where changes may wait together."""
    return {"yes": compare_full, "end": compare_end, "no": compare_nothing}[case.full]


def reads(steps: Sequence[Step]) -> bool:
    """Whether a watch wants OPEN, ACCESS or CLOSE_NOWRITE."""
    return any(
        step.verb == "watch" and mask_of(step.words[2]) & READING for step in steps if step.words
    )


def all_cases() -> list[Case]:
    return [parse(path) for path in sorted(CASES.glob("*.case"))]


def expected_lines(outcome: Outcome) -> list[str]:
    """An outcome as the expected part of a case."""
    return [str(event) for event in outcome.events] + [f"? {answer}" for answer in outcome.answers]


def expected_outcome(case: Case) -> Outcome:
    """The expected part of a case as an outcome that can be compared."""
    events = [event_of(line) for line in case.expected if not line.startswith("?")]
    answers = [line[2:] for line in case.expected if line.startswith("?")]
    return Outcome(tuple(events), tuple(answers))


def event_of(line: str) -> Event:
    """The event that ``str(event)`` wrote."""
    watch, _, rest = line.partition(": ")
    words = rest.split(" ")
    partner = ""
    if len(words) > 2 and words[-2] in "<>":
        partner = words[-1]
        words = words[:-2]
    return Event(watch, words[0], " ".join(words[1:]), partner)


def record(case: Case, outcome: Outcome) -> None:
    """Write the expected part of a case anew."""
    case.path.write_text(
        case.script.rstrip("\n")
        + "\n---\n"
        + "".join(f"{line}\n" for line in expected_lines(outcome))
    )
