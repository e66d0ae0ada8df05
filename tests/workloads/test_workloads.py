"""Real programs as the remote side.

Their temporary names are random and their timing is their own, so two runs cannot be
compared.  One run is watched twice instead: natively in SRC, which is the
specification, and in MNT, by the same program at the same moment.

What is watched is the set of directories that exist before the program starts: a
watcher that adds watches as directories appear misses some of what happens in
them, natively too.  Such a watcher runs beside the others; of it is required that
what it believes in the end is what is on the disk.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conformance.client import ANSWER_SECONDS, Client, LocalClient, Silence
from tests.conformance.play import Verdict
from tests.conformance.stream import Outcome, compare_full, events_of, mask_of
from tests.conformance.watcher import Actor
from tests.stage import FarwatchStage, Stage
from tests.workloads.programs import WORKLOADS, Workload

RECURSIVE = Path(__file__).with_name("recursive.py")


def directories(root: Path) -> list[str]:
    return sorted(os.path.relpath(path, root) for path, _, _ in os.walk(root))


def place_watches(client: Client, base: str, paths: list[str]) -> None:
    client.ask("start", base=base)
    client.forget()
    client.ask("group", group="a")
    for path in paths:
        client.ask("watch", watch=path, group="a", path=path, mask=mask_of("CHANGES"))


def synchronise(stage: Stage, *clients: Client) -> None:
    """Twice: what was read together with the first may be told after it."""
    for _ in range(2):
        name = stage.sentinel()
        for client in clients:
            client.wait_for_sentinel(name, ["a"])


def outcome(client: Client, root: Path, paths: list[str]) -> Outcome:
    return Outcome(
        tuple(events_of(client.events)),
        disk={path: os.listdir(root / path) for path in paths if (root / path).is_dir()},
        seen=client.ask("act", words=["tree", "."]),
        truth=Actor(str(root)).do_tree("."),
    )


def both_watched(workload: Workload, stage: Stage) -> None:
    base = stage.fresh()
    root = stage.acting / base
    workload.prepare(root)
    stage.settle()
    paths = directories(root)
    client = stage.client()
    try:
        with LocalClient(str(stage.acting), "native") as native:
            for watcher in (native, client):
                place_watches(watcher, base, paths)
            synchronise(stage, native, client)
            workload.act(root)
            synchronise(stage, native, client)
            spec, seen = outcome(native, root, paths), outcome(client, root, paths)
            client.ask("stop")
    except BaseException:
        stage.drop_client()
        raise
    spec, seen = surviving(spec), surviving(seen)
    Verdict(compare_full(spec, seen), spec, seen, 0).require_equal(stage.name)


def surviving(seen: Outcome) -> Outcome:
    """Directories that were removed and made again are others than those watched."""
    kept = {path: names for path, names in seen.disk.items() if died(seen, path) is False}
    return seen._replace(disk=kept)


def died(seen: Outcome, path: str) -> bool:
    return any(
        event.watch == path and event.kind in {"IGNORED", "MOVE_SELF"} for event in seen.events
    )


@contextmanager
def recursive_watcher(directory: str) -> Iterator[subprocess.Popen[bytes]]:
    program = subprocess.Popen(
        [sys.executable, str(RECURSIVE), directory], stdout=subprocess.PIPE, bufsize=0
    )
    try:
        assert line_of(program) == b"ready"
        yield program
    finally:
        program.kill()
        program.wait(ANSWER_SECONDS)
        if program.stdout:
            program.stdout.close()


def line_of(program: subprocess.Popen[bytes]) -> bytes:
    """The next line, or Silence."""
    assert program.stdout
    deadline, data = time.monotonic() + ANSWER_SECONDS, b""
    while not data.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([program.stdout], [], [], left)[0]:
            raise Silence(f"the recursive watcher said nothing more than {data[:200]!r}")
        more = os.read(program.stdout.fileno(), 1 << 20)
        if not more:
            raise Silence("the recursive watcher has ended")
        data += more
    return data.rstrip(b"\n")


def recursively_known(workload: Workload, stage: Stage) -> None:
    base = stage.fresh()
    root = stage.acting / base
    workload.prepare(root)
    stage.settle()
    with recursive_watcher(f"{stage.watching}/{base}") as program:
        workload.act(root)
        (root / ".tell-first").touch()
        line_of(program)
        (root / ".tell-now").touch()
        believed = {path: bool(is_dir) for path, is_dir in json.loads(line_of(program))}
    (root / ".tell-first").unlink()
    (root / ".tell-now").unlink()
    assert believed == truth(root)


def truth(root: Path) -> dict[str, bool]:
    """Path → whether it is a directory."""
    found = {}
    for where, below, files in os.walk(root):
        for name in below + files:
            path = Path(where, name)
            found[str(path.relative_to(root))] = path.is_dir() and not path.is_symlink()
    return found


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_natively(workload: Workload, native: Stage) -> None:
    """The harness and the workload: two native watchers agree."""
    both_watched(workload, native)
    recursively_known(workload, native)


@pytest.mark.root
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_same_events(workload: Workload, mounted: FarwatchStage) -> None:
    both_watched(workload, mounted)


@pytest.mark.root
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_recursive_watcher_knows_the_disk(workload: Workload, mounted: FarwatchStage) -> None:
    recursively_known(workload, mounted)
