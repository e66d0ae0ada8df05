"""Cases of the suite with everything done by the client itself."""

from __future__ import annotations

from collections.abc import Sequence

from tests.conformance.script import QUESTIONS, Case, Step, all_cases

BY_HANDLE = frozenset({"open", "put", "get", "cut", "extend", "mode", "close"})
"""Commands whose first word is the name of an open file."""
CASES = all_cases()
AT_FULL_SPEED = [case for case in CASES if case.full != "no"]


def by_the_client(steps: Sequence[Step]) -> list[Step]:
    """The same steps, none of them made by the remote side."""
    return [_by_the_client(step) if step.verb == "change" else step for step in steps]


def _by_the_client(step: Step) -> Step:
    words = step.words
    if words[0] in BY_HANDLE:
        # What the client has opened under the same name is another file.
        words = (words[0], f"remote-{words[1]}", *words[2:])
    return Step("local", words, step.allowed)


def stays_inside(case: Case) -> bool:
    """Whether it can be done in the export alone: a client reaches nothing else."""
    return not any(word.startswith("^") for step in case.steps for word in step.words)


def is_remote_only(case: Case) -> bool:
    """Whether the client does nothing in it but watch."""
    return not any(step.verb == "local" or step.verb in QUESTIONS for step in case.steps)


def has_both(case: Case) -> bool:
    """Whether both sides change something."""
    return any(step.verb == "local" for step in case.steps)


INSIDE = [case for case in CASES if stays_inside(case)]
REMOTE_ONLY = [case for case in CASES if is_remote_only(case)]
