"""Plays conformance cases as whoever runs this, and says a line of JSON about each.

    python -m tests.ordinary.cases CASE...

A line has the case's name, whether the two streams were equal, and else both of them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import ExitStack

from tests.conformance.play import compared_paced
from tests.conformance.script import Case, all_cases, compare_at_full_speed, reads
from tests.ordinary.stage import OrdinaryStage
from tests.stage import FarwatchStage, NativeStage


def main() -> None:
    # Who is ended tidies up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.umask(0o022)
    wanted = set(sys.argv[1:])
    cases = [case for case in all_cases() if str(case) in wanted]
    with ExitStack() as stack:
        native = stack.enter_context(NativeStage())
        stages: dict[bool, FarwatchStage] = {}
        for case in cases:
            reading = reads(case.steps)
            if reading not in stages:
                stages[reading] = stack.enter_context(OrdinaryStage(reading=reading))
            print(json.dumps(_played(case, native, stages[reading])), flush=True)  # noqa: T201


def _played(case: Case, native: NativeStage, stage: FarwatchStage) -> dict[str, object]:
    said = {"case": str(case), "equal": True, "how": ""}
    try:
        verdict = compared_paced(native, stage, case.steps, compare_at_full_speed(case))
        verdict.require_equal(stage.name)
    except AssertionError as error:
        said |= {"equal": False, "how": f"{error}\n{stage.log()[-2000:]}"}
    return said


if __name__ == "__main__":
    main()
