"""Runs cases by hand, and shows both streams beside each other.

    python -m tests.conformance.run CASE... [--native|--farwatch|--guest 6.12] [--speed paced|full]
    python -m tests.conformance.run CASE... --record

CASE is a file, or a name (a part of one will do) of a file in ``cases``; none means
all.  Without --native the case runs behind farwatch, too: behind a mount on this machine, or
with the watcher in a guest with a kernel of that series.  --record writes the
native events into the files.
"""

# ruff: noqa: T201

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.conformance.play import (
    Speed,
    Verdict,
    compared_full,
    compared_paced,
    play,
)
from tests.conformance.script import (
    Case,
    all_cases,
    compare_at_full_speed,
    expected_lines,
    expected_outcome,
    parse,
    reads,
    record,
)
from tests.conformance.stream import Outcome, compare_paced, side_by_side
from tests.guest.initramfs import image
from tests.guest.stage import farwatch_stage
from tests.stage import FarwatchStage, NativeStage, Stage


def main() -> int:
    # Who is ended tidies up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = arguments()
    cases = chosen(options.cases)
    if not cases:
        print("no such case", file=sys.stderr)
        return 2
    with ExitStack() as stack:
        native = stack.enter_context(NativeStage())
        if options.record:
            return sum(record_one(native, case) for case in cases)
        stages: dict[bool, Stage] = {}
        failed = []
        for case in cases:
            reading = reads(case.steps)
            if not options.native and reading not in stages:
                stages[reading] = stack.enter_context(made(options, stack, reading))
            stage = stages.get(reading)
            failed += [case for _ in range(options.times) if not run(native, stage, case, options)]
        if options.verbose or failed:
            print(*(stage.log() for stage in stages.values()), sep="\n")
        total = len(cases) * options.times
        print(f"{total - len(failed)} passed, {len(failed)} failed", *map(str, failed))
    return 1 if failed else 0


def made(options: argparse.Namespace, stack: ExitStack, reading: bool) -> Stage:
    if not options.guest:
        return FarwatchStage(reading=reading)
    directory = Path(stack.enter_context(TemporaryDirectory(prefix="farwatch-test-")))
    return farwatch_stage(image(options.guest, directory), reading=reading)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.run")
    parser.add_argument("cases", nargs="*", metavar="CASE")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--native", action="store_true", help="natively against the expected part only"
    )
    where.add_argument("--farwatch", action="store_true", help="behind a mount (the default)")
    where.add_argument("--guest", metavar="SERIES", help="in a guest: 6.12 or 6.1")
    parser.add_argument(
        "--record", action="store_true", help="write the native events into the files"
    )
    parser.add_argument("--speed", choices=[speed.value for speed in Speed], default="paced")
    parser.add_argument("--times", type=int, default=1, help="how often")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="show the streams of cases that pass"
    )
    return parser.parse_args()


def chosen(names: list[str]) -> list[Case]:
    if not names:
        return all_cases()
    cases = []
    for name in names:
        if name.endswith(".case"):
            cases.append(parse(Path(name)))
        else:
            exact = [case for case in all_cases() if case.path.stem == name]
            cases += exact or [case for case in all_cases() if name in case.path.stem]
    return cases


def record_one(native: Stage, case: Case) -> int:
    outcome = play(native, case.steps, Speed.PACED)
    new = expected_lines(outcome)
    if list(case.expected) != new:
        print(side_by_side(case.expected, new, (f"{case}: before", "now")))
        record(case, outcome)
    return 0


def run(native: Stage, stage: Stage | None, case: Case, options: argparse.Namespace) -> bool:
    """Run one case once, show what is to be shown, and tell whether it passed."""
    speed = Speed(options.speed)
    try:
        verdict = judge(native, stage, case, speed)
    except AssertionError as error:
        verdict = Verdict([str(error)], Outcome(()), Outcome(()), 0)
    slow = f", paused {verdict.pace} s" if stage and verdict.pace in stage.paces[1:] else ""
    print(f"{'FAILED' if verdict.problems else 'ok    '} {case} ({speed.value}{slow})")
    if verdict.problems or options.verbose:
        print(case.script.rstrip())
        titles = ("native", stage.name) if stage else ("expected", "native")
        streams = expected_lines(verdict.spec), expected_lines(verdict.seen)
        print(side_by_side(*streams, titles))
    for problem in verdict.problems:
        print("  *", problem)
    sys.stdout.flush()
    return not verdict.problems


def judge(native: Stage, stage: Stage | None, case: Case, speed: Speed) -> Verdict:
    if stage is None:
        spec, seen = expected_outcome(case), play(native, case.steps, speed)
        compare = compare_paced if speed is Speed.PACED else compare_at_full_speed(case)
        return Verdict(compare(spec, seen), spec, seen, 0)
    if speed is Speed.PACED:
        return compared_paced(native, stage, case.steps, compare_at_full_speed(case))
    return compared_full(native, stage, case.steps, compare_at_full_speed(case))


if __name__ == "__main__":
    sys.exit(main())
