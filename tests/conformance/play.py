"""Plays a script on a stage, and returns what the watchers got.

Nobody sleeps until events "must have" arrived.  To synchronise, a sentinel file
is made in a directory that every inotify instance of the client watches, first
by the client itself, then by the remote side; when both events are there, so is
everything before them.  Events of an export arrive in the source's order, so
this holds behind a mount, too.

``paced`` pauses after each change, and synchronises before the client acts
itself.  ``full`` synchronises only where a watch is placed or removed, and at the
end.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import time
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import NamedTuple

from tests.conformance.client import Client, RawEvent, Refused
from tests.conformance.script import QUESTIONS, Step, expected_lines, watch_of
from tests.conformance.stream import (
    NAMING,
    ONESHOT,
    READING,
    Comparison,
    Outcome,
    compare_full,
    compare_paced,
    events_of,
    side_by_side,
)
from tests.conformance.watcher import Actor
from tests.stage import Stage

PACE_SECONDS = Stage.paces[0]
AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)


class Speed(Enum):
    PACED = "paced"
    FULL = "full"


def handle(path: str) -> bytes | None:
    """The file handle of a path, the symlink's own if it is one; None if there is nothing.

    name_to_handle_at(2); it holds the generation, so it is never used twice.
    """
    buffer = ctypes.create_string_buffer(8 + 128)
    struct.pack_into("I", buffer, 0, 128)
    mount = ctypes.c_int()
    if _libc.name_to_handle_at(AT_FDCWD, os.fsencode(path), buffer, ctypes.byref(mount), 0) < 0:
        return None
    size = int(struct.unpack_from("I", buffer)[0])
    return buffer.raw[4 : 8 + size]


class Place(NamedTuple):
    directory: bytes
    name: str


class Arrivals:
    """Notices where one inode arrives twice at one name, and where directories are moved to."""

    def __init__(self) -> None:
        self.twice: set[Place] = set()
        self.moved: set[Place] = set()
        self._first: dict[bytes, Place] = {}
        self._last: dict[Place, bytes | None] = {}
        self._since_sync: set[tuple[Place, bytes]] = set()

    def look(self, paths: Iterable[str], *, arriving: bool) -> None:
        """Take note of what is at ``paths`` now."""
        for path in paths:
            directory = handle(os.path.dirname(path))
            if directory is None:
                continue
            place, now = Place(directory, os.path.basename(path)), handle(path)
            if arriving and now and now != self._last.get(place):
                if (place, now) in self._since_sync:
                    self.twice.add(place)
                self._since_sync.add((place, now))
            if now and place != self._first.setdefault(now, place) and os.path.isdir(path):
                self.moved.add(place)
            self._last[place] = now

    def synchronised(self) -> None:
        self._since_sync.clear()
        self._first.clear()


class Player:
    """One run of one script."""

    def __init__(self, stage: Stage, speed: Speed, base: str, pace: float) -> None:
        self.stage = stage
        self.speed = speed
        self.pace = pace
        self.base = base
        self.root = str(stage.acting / base)
        self.actor = Actor(self.root, str(stage.outside / base))
        self.client: Client = stage.client()
        self.answers: list[str] = []
        self._groups: list[str] = []
        self._watched: dict[str, bytes] = {}
        self._group_of: dict[str, str] = {}
        self._masks: dict[str, int] = {}
        self._arrivals = Arrivals()
        self.client.ask("start", base=base)
        self.client.forget()

    def play(self, steps: Sequence[Step]) -> Outcome:
        try:
            for step in steps:
                self.step(step)
            self.sync()
            return self._outcome(list(self.client.events))
        finally:
            self.actor.release()
            self.client.ask("stop")
            self.client.forget()

    def step(self, step: Step) -> None:
        match step.verb:
            case "watch":
                self._watch(step)
            case "unwatch":
                self._unwatch(step)
            case "sync":
                self.sync()
            case "change":
                self._change(step)
            case verb:
                self._client_acts(verb, step)

    def sync(self) -> None:
        """Return when every event so far has arrived."""
        if self._groups:
            name = self.stage.sentinel_name()
            self.client.ask("sentinel", name=name)
            self.client.wait_for_sentinel(name, self._groups)
            # Twice: what was read together with the first may be told after it.
            for _ in range(2 if self.stage.tells_remote else 0):
                self.client.wait_for_sentinel(self.stage.sentinel(), self._groups)
        self._arrivals.synchronised()

    def _watch(self, step: Step) -> None:
        watch = watch_of(step.words)
        if watch.group not in self._groups:
            self.client.ask("group", group=watch.group)
            self._groups.append(watch.group)
        self.sync()
        found = handle(self.actor.path(watch.path))
        arguments = {
            "watch": watch.name,
            "group": watch.group,
            "path": watch.path,
            "mask": watch.mask,
        }
        if self._ask(step, "watch", **arguments):
            self._group_of[watch.name] = watch.group
            if found is not None:
                self._watched.setdefault(watch.name, found)
            self._masks[watch.name] = watch.mask
            if watch.mask & READING:
                self.stage.wait_for_reading(watch.mask & READING)

    def _unwatch(self, step: Step) -> None:
        self.sync()
        name = step.words[0]
        if name in self._group_of:
            self._ask(step, "unwatch", watch=name, group=self._group_of[name])
            self._masks.pop(name, None)
        else:
            self._judge(step, "EINVAL")

    def _client_acts(self, verb: str, step: Step) -> None:
        if self.speed is Speed.PACED:
            self.sync()
        words = [verb, *step.words] if verb in QUESTIONS else list(step.words)
        paths = self._changed_paths(words) if verb == "local" else []
        self._arrivals.look(paths, arriving=False)
        self._ask(step, "act", words=words)
        self._arrivals.look(paths, arriving=True)
        self._pause()

    def _change(self, step: Step) -> None:
        paths = self._changed_paths(step.words)
        self._arrivals.look(paths, arriving=False)
        failed = ""
        try:
            self.actor.do(list(step.words))
        except OSError as error:
            failed = errno.errorcode.get(error.errno or 0, str(error))
        self._judge(step, failed)
        self._arrivals.look(paths, arriving=True)
        self._pause()

    def _changed_paths(self, words: Sequence[str]) -> list[str]:
        """Every path that a command might have put something at."""
        return [self.actor.path(word) for word in words[1:] if "\0" not in word]

    def _pause(self) -> None:
        if self.speed is Speed.PACED:
            time.sleep(self.pace)

    def _ask(self, step: Step, do: str, **arguments: object) -> bool:
        failed = ""
        answer = ""
        try:
            answer = self.client.ask(do, **arguments)
        except Refused as refused:
            failed = refused.name
        self._judge(step, "" if step.verb in QUESTIONS else failed)
        if failed or answer:
            self.answers.append(f"{step}: {failed or answer}")
        return not failed

    def _judge(self, step: Step, failed: str) -> None:
        if step.allowed not in ("*", failed):
            raise AssertionError(f"{self.stage.name}: {step}: {failed or 'did not fail'}")

    def _outcome(self, heard: list[RawEvent]) -> Outcome:
        where = self._directories()
        disk = {
            watch: os.listdir(path)
            for watch, path in where.items()
            if self._masks.get(watch, 0) & (NAMING | ONESHOT) == NAMING
        }
        truth = Actor(self.root).do_tree(".")
        return Outcome(
            tuple(events_of(heard)),
            tuple(self.answers),
            disk,
            self._client_tree(),
            truth,
            self._watched_names(self._arrivals.twice),
            tuple(event.source for event in heard),
            self._watched_names(self._arrivals.moved),
        )

    def _watched_names(self, places: Iterable[Place]) -> frozenset[tuple[str, str]]:
        """Those of the places that are in watched directories: watch and name."""
        return frozenset(
            (watch, place.name)
            for watch, found in self._watched.items()
            for place in places
            if place.directory == found
        )

    def _client_tree(self) -> str:
        try:
            return self.client.ask("act", words=["tree", "."])
        except Refused as refused:
            return f"{refused.name}: {refused}"

    def _directories(self) -> dict[str, str]:
        """Watch → path where its directory is now, of those that still are in the tree."""
        at = {handle(path): path for path, _, _ in os.walk(self.root)}
        return {watch: at[found] for watch, found in self._watched.items() if found in at}


def play(
    stage: Stage,
    steps: Sequence[Step],
    speed: Speed,
    base: str | None = None,
    pace: float = PACE_SECONDS,
) -> Outcome:
    """Play ``steps`` in a fresh directory of the stage, or in ``base``."""
    try:
        where = stage.fresh() if base is None else base
        return Player(stage, speed, where, pace).play(steps)
    except BaseException:
        stage.drop_client()
        raise


class Verdict(NamedTuple):
    """What a comparison of a native run with another has shown."""

    problems: list[str]
    spec: Outcome
    seen: Outcome
    pace: float
    """The pause that it took, seconds."""

    def require_equal(self, seen_as: str) -> None:
        """Raise AssertionError with both streams beside each other if there are problems."""
        if self.problems:
            left, right = expected_lines(self.spec), expected_lines(self.seen)
            streams = side_by_side(left, right, ("expected", seen_as))
            raise AssertionError("\n".join(["", *self.problems, streams]))


def compared_paced(
    native: Stage,
    stage: Stage,
    steps: Sequence[Step],
    at_full_speed: Comparison = compare_full,
    base: str | None = None,
) -> Verdict:
    """Play natively and, with pauses, on ``stage``; the streams must be equal in full order.

    Where the machine is busy a pause can be too short, and changes wait together:
    then what holds ``at_full_speed`` must hold, and with a longer pause the full order.
    """
    spec = play(native, steps, Speed.FULL, base)
    verdict = Verdict([], spec, spec, 0)
    for pace in stage.paces:
        seen = play(stage, steps, Speed.PACED, base, pace)
        problems = compare_paced(spec, seen)
        if problems and base is None:
            spec = _another(native, steps, spec, seen, compare_paced)
            problems = compare_paced(spec, seen)
        lagging = at_full_speed(spec, seen) if problems else []
        verdict = Verdict(problems + lagging, spec, seen, pace)
        if lagging or not problems or base is not None:
            break
    return verdict


def _another(
    native: Stage, steps: Sequence[Step], spec: Outcome, seen: Outcome, compare: Comparison
) -> Outcome:
    """Another native run, if one is as ``seen``; else the one that there is.

    The mounts of other tests watch the same file system: a server that looks at a directory
    keeps it alive for that moment, and its end may come after that of the native run.
    """
    for _ in range(2):
        again = play(native, steps, Speed.FULL)
        if not compare(again, seen):
            return again
    return spec


def compared_full(
    native: Stage,
    stage: Stage,
    steps: Sequence[Step],
    compare: Comparison = compare_full,
    base: str | None = None,
) -> Verdict:
    """Play natively and on ``stage`` without any pause."""
    spec = play(native, steps, Speed.FULL, base)
    seen = play(stage, steps, Speed.FULL, base)
    if base is None and compare(spec, seen):
        spec = _another(native, steps, spec, seen, compare)
    return Verdict(compare(spec, seen), spec, seen, 0)
