"""Random histories: whatever happens, a client behind a mount hears what it hears natively.

A history is a script of the cases' language, made by hypothesis from few names, so
that names meet.  Commands may fail, natively and here alike.

- *paced*: everything, local changes of the same names among them, in full order.
- *full speed*: remote changes only; and with local changes of other names.
- *at once*: both sides change the same names at the same moment.  Nobody knows what
  they do to each other, so only this is required: the last word about each name
  and the client's view agree with the disk, and no name comes or goes more often
  than it did.

Not in here, since they cannot be equal: what ``stream`` lists; and at full speed
a local change below a directory that the remote side renames meanwhile, for by
which name the client reaches it depends on what it has been told.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conformance.broken import BrokenStage
from tests.conformance.client import Client, RawEvent
from tests.conformance.play import Speed, Verdict, compared_full, compared_paced, play
from tests.conformance.script import Step, parse_script, reads
from tests.conformance.stream import (
    Outcome,
    compare_full,
    compare_paced,
    events_of,
    incoherence,
    mask_of,
    wrong_last_words,
)
from tests.conformance.watcher import Actor
from tests.conftest import Mounts
from tests.stage import NativeStage, Stage

PACED_EXAMPLES, PACED_LONG = 25, 1500
FULL_EXAMPLES, FULL_LONG = 50, 3000
AT_ONCE_EXAMPLES, AT_ONCE_LONG = 15, 500
LONG_SECONDS = 3600
MINIMAL = 3
"""Steps that a fault in one kind of event needs: a watch, the change, and one to spare."""

SETUP = parse_script(
    """
    mkdir d
    mkdir e
    mkdir d/s
    write d/x one
    write e/y two
    write d/s/x three
    symlink x d/l
    write ^o four
    """
)
DIRECTORIES = ["d", "e", "d/s", "e/s"]
FILES = ["d/x", "d/y", "e/x", "e/y", "d/s/x", "e/s/y", "d/l", "e/\udcff"]
"""The last is a name that is no UTF-8."""
FILES_IN_FIXED_DIRECTORIES = ["d/x", "d/y", "e/x", "e/y"]
NODES = ["d/p", "e/p"]
"""Names of what must not be opened."""
HANDLES = ["h1", "h2"]
OUTSIDE = ["^o", "^q"]
SIZES = ["0", "2", "9"]

Words = tuple[str, ...]
Strategy = st.SearchStrategy[Words]


def words(*parts: str | Sequence[str]) -> Strategy:
    """Commands of which each part is a word or one of several."""
    return st.tuples(*(st.just(p) if isinstance(p, str) else st.sampled_from(p) for p in parts))


def file_changes(files: Sequence[str], prefix: str = "") -> list[Strategy]:
    """What can be done with files by path; ``prefix`` keeps handles apart."""
    handles = [prefix + handle for handle in HANDLES]
    return [
        words("mkfile", files),
        words("write", files, ["", "hello", "HELLO"]),
        words("append", files, ["more"]),
        words("overwrite", files, ["MORE"]),
        words("truncate", files, SIZES),
        words("touch", files),
        words("read", files),
        words("chmod", files, ["600", "644"]),
        words("chown", files, ["0", "1"], ["0", "1"]),
        words("utime", files, ["atime", "mtime", "both"]),
        words("setxattr", files, "user.a", ["one", "two"]),
        words("rmxattr", files, "user.a"),
        words("unlink", files),
        words("unlink", files),
        words("link", files, files),
        words("rename", files, files),
        words("rename", files, files),
        words("exchange", files, files),
        words("noreplace", files, files),
        words("open", handles, ["r", "w", "rw", "a", "c"], files),
        words("put", handles, ["text"]),
        words("get", handles),
        words("cut", handles, SIZES),
        words("close", handles),
    ]


def tree_changes() -> list[Strategy]:
    """What can be done with directories, other nodes, and the world outside."""
    anything = DIRECTORIES + FILES
    return [
        words("mkdir", anything),
        words("rmdir", DIRECTORIES),
        words("readdir", DIRECTORIES),
        words("chmod", DIRECTORIES, ["700", "755"]),
        words("utime", DIRECTORIES, ["mtime", "both"]),
        words("rename", DIRECTORIES, DIRECTORIES),
        words("rename", anything, anything),
        words("exchange", anything, anything),
        words("symlink", ["x", "nowhere"], FILES),
        words("mknod", NODES, ["fifo", "char"]),
        words("socket", NODES),
        words("chmod", NODES, ["600", "644"]),
        words("rename", NODES, NODES),
        words("unlink", NODES),
        words("rename", FILES, OUTSIDE),
        words("rename", OUTSIDE, FILES),
        words("link", OUTSIDE, FILES),
        words("link", FILES, OUTSIDE),
        words("append", OUTSIDE, "more"),
        words("unlink", OUTSIDE),
    ]


def step(verb: str) -> Callable[[Words], Step]:
    return lambda chosen: Step(verb, chosen, "*")


WATCHED = [*DIRECTORIES, *FILES, "."]
LASTING = ["CHANGES", "CHANGES", "ALL", "CREATE|DELETE|DELETE_SELF"]
MASKS = [*LASTING, "MODIFY|ONESHOT"]
"""At full speed no ONESHOT: merging decides which event of several is the first."""
REMOTE = st.one_of(*file_changes(FILES), *tree_changes()).map(step("change"))
REMOTE_FILES = st.one_of(*file_changes(FILES_IN_FIXED_DIRECTORIES)).map(step("change"))
LOCAL = st.one_of(*file_changes(FILES, "l"), *tree_changes()[:9]).map(step("local"))
LOCAL_ELSEWHERE = st.one_of(*file_changes(["d/lx", "d/ly", "e/lx"], "l")).map(step("local"))
QUESTION = st.one_of(
    words(FILES + DIRECTORIES).map(step("look")),
    words(DIRECTORIES).map(step("list")),
    words(FILES).map(step("peek")),
)
WATCH = words(["w"], WATCHED, MASKS).map(step("watch"))
LASTING_WATCH = words(["w"], WATCHED, LASTING).map(step("watch"))
UNWATCH = words(["w1", "w2", "w3"]).map(step("unwatch"))


def numbered(steps: Sequence[Step]) -> list[Step]:
    """Give each watch a name of its own, and drop the removal of what is not there."""
    told: list[Step] = []
    placed = 0
    for one in steps:
        if one.verb == "watch":
            placed += 1
            told.append(one._replace(words=(f"w{placed}", *one.words[1:])))
        elif one.verb != "unwatch" or int(one.words[0][1:]) <= placed:
            told.append(one)
    return told


def history(
    *kinds: st.SearchStrategy[Step],
    watches: Sequence[str] = WATCHED,
    masks: Sequence[str] = MASKS,
) -> st.SearchStrategy[list[Step]]:
    first = st.lists(words(["w"], watches, masks).map(step("watch")), min_size=1, max_size=4)
    return st.tuples(first, st.lists(st.one_of(*kinds), min_size=1, max_size=30)).map(
        lambda both: numbered([*SETUP, *both[0], *both[1]])
    )


EVERYTHING = history(REMOTE, REMOTE, REMOTE, LOCAL, QUESTION, WATCH, UNWATCH)
REMOTE_ONLY = history(REMOTE, REMOTE, REMOTE, REMOTE, QUESTION, LASTING_WATCH, masks=LASTING)
BESIDE_LOCAL = history(
    REMOTE_FILES, REMOTE_FILES, LOCAL_ELSEWHERE, watches=["d", "e", "d/x"], masks=LASTING
)


def require(verdict: Verdict, steps: Sequence[Step], stage: Stage) -> None:
    try:
        verdict.require_equal(stage.name)
    except AssertionError as error:
        script = "\n".join(map(str, steps[len(SETUP) :]))
        raise AssertionError(f"{script}\n{error}") from None


def equal_paced(native: Stage, mounts: Mounts, steps: list[Step]) -> None:
    stage = mounts.stage(reading=reads(steps))
    require(compared_paced(native, stage, steps), steps, stage)


def equal_full(native: Stage, mounts: Mounts, steps: list[Step]) -> None:
    stage = mounts.stage(reading=reads(steps))
    require(compared_full(native, stage, steps), steps, stage)


@given(steps=EVERYTHING)
@settings(max_examples=PACED_EXAMPLES)
def test_two_native_runs_are_equal(native: NativeStage, steps: list[Step]) -> None:
    """The histories themselves are reproducible, and the comparison does not cry wolf."""
    one, other = (play(native, steps, Speed.FULL) for _ in range(2))
    problems = compare_paced(one, other) + compare_full(one, other)
    require(Verdict(problems, one, other, 0), steps, native)


def lose_move_self(events: list[RawEvent]) -> None:
    events[:] = [event for event in events if not event.mask & mask_of("MOVE_SELF")]


@pytest.mark.long
def test_a_fault_is_found_and_made_small(native: NativeStage) -> None:
    """A stage that loses one kind fails, and hypothesis says so in a few lines."""
    with BrokenStage(lose_move_self) as broken:

        @given(steps=EVERYTHING)
        @settings(max_examples=1000, database=None)
        def search(steps: list[Step]) -> None:
            require(compared_full(native, broken, steps), steps, broken)

        with pytest.raises(AssertionError, match="MOVE_SELF") as found:
            search()
    script = str(found.value).split("\n\n")[0].splitlines()
    assert len(script) <= MINIMAL, script


@pytest.mark.root
@given(steps=EVERYTHING)
@settings(max_examples=PACED_EXAMPLES)
def test_paced(native: NativeStage, mounts: Mounts, steps: list[Step]) -> None:
    equal_paced(native, mounts, steps)


@pytest.mark.root
@given(steps=REMOTE_ONLY)
@settings(max_examples=FULL_EXAMPLES)
def test_at_full_speed(native: NativeStage, mounts: Mounts, steps: list[Step]) -> None:
    equal_full(native, mounts, steps)


@pytest.mark.root
@given(steps=BESIDE_LOCAL)
@settings(max_examples=FULL_EXAMPLES)
def test_beside_local_changes(native: NativeStage, mounts: Mounts, steps: list[Step]) -> None:
    equal_full(native, mounts, steps)


@pytest.mark.root
@pytest.mark.long
@pytest.mark.timeout(LONG_SECONDS)
@given(steps=EVERYTHING)
@settings(max_examples=PACED_LONG)
def test_paced_long(native: NativeStage, mounts: Mounts, steps: list[Step]) -> None:
    equal_paced(native, mounts, steps)


@pytest.mark.root
@pytest.mark.long
@pytest.mark.timeout(LONG_SECONDS)
@given(steps=REMOTE_ONLY)
@settings(max_examples=FULL_LONG)
def test_at_full_speed_long(native: NativeStage, mounts: Mounts, steps: list[Step]) -> None:
    equal_full(native, mounts, steps)


@pytest.mark.root
@pytest.mark.long
@pytest.mark.timeout(LONG_SECONDS)
@given(steps=BESIDE_LOCAL)
@settings(max_examples=FULL_LONG)
def test_beside_local_changes_long(native: NativeStage, mounts: Mounts, steps: list[Step]) -> None:
    equal_full(native, mounts, steps)


# Both sides at once, the same names.

AT_ONCE = ["d/x", "d/y", "d/z"]
NAMING = st.one_of(
    words("mkfile", AT_ONCE),
    words("unlink", AT_ONCE),
    words("write", AT_ONCE, "text"),
    words("rename", AT_ONCE, AT_ONCE),
)
MANY = st.lists(NAMING, min_size=1, max_size=40)


def acted(actor: Actor, commands: Sequence[Words]) -> list[str]:
    """Carry out what can be; the outcome of each as the client's thread tells it."""
    outcomes = []
    for command in commands:
        try:
            outcomes.append(actor.do(list(command)))
        except OSError as error:
            outcomes.append(errno.errorcode.get(error.errno or 0, str(error)))
    return outcomes


def most(commands: Sequence[Words], outcomes: Sequence[str]) -> Counter[tuple[str, str]]:
    """How often at most a name came or went: ("came" | "went", name) → times."""
    count: Counter[tuple[str, str]] = Counter()
    for command, outcome in zip(commands, outcomes, strict=True):
        if outcome:
            continue
        names = [os.path.basename(path) for path in command[1:]]
        match command[0]:
            case "mkfile" | "write":
                count["came", names[0]] += 1
            case "unlink":
                count["went", names[0]] += 1
            case "rename":
                count["went", names[0]] += 1
                count["came", names[1]] += 1
                count["went", names[1]] += 1
    return count


def too_many(seen: Outcome, limit: Counter[tuple[str, str]]) -> list[str]:
    told = Counter(
        ("came" if event.kind in {"CREATE", "MOVED_TO"} else "went", event.name)
        for event in seen.events
    )
    return [
        f"{name} {what} {times} times, but at most {limit[what, name]} times in truth"
        for (what, name), times in told.items()
        if times > limit[what, name]
    ]


def synchronise(stage: Stage, client: Client) -> None:
    name = stage.sentinel_name()
    client.ask("sentinel", name=name)
    client.wait_for_sentinel(name, ["a"])
    client.wait_for_sentinel(stage.sentinel(), ["a"])


def both_at_once(stage: Stage, remote: Sequence[Words], local: Sequence[Words]) -> None:
    base = stage.fresh()
    actor = Actor(str(stage.acting / base))
    actor.do(["mkdir", "d"])
    client = stage.client()
    try:
        client.ask("start", base=base)
        client.forget()
        client.ask("group", group="a")
        synchronise(stage, client)
        mask = mask_of("CREATE|DELETE|MOVED_FROM|MOVED_TO")
        client.ask("watch", watch="d", group="a", path="d", mask=mask)
        number = client.send("background", commands=local, pause=0)
        remote_outcomes = acted(actor, remote)
        local_outcomes = client.answer(number).split("\n")
        synchronise(stage, client)
        seen = Outcome(
            tuple(events_of(client.events)),
            disk={"d": os.listdir(actor.path("d"))},
            seen=client.ask("act", words=["tree", "."]),
            truth=actor.do(["tree", "."]),
        )
        client.ask("stop")
    except BaseException:
        stage.drop_client()
        raise
    limit = most(remote, remote_outcomes) + most(local, local_outcomes)
    problems = [*wrong_last_words(seen).values(), *too_many(seen, limit), *incoherence(seen)]
    told = "\n".join(map(str, seen.events))
    assert not problems, "\n".join([*problems, f"remote: {remote}", f"local: {local}", told])


@given(remote=MANY, local=MANY)
@settings(max_examples=AT_ONCE_EXAMPLES)
def test_both_at_once_natively(
    native: NativeStage, remote: list[Words], local: list[Words]
) -> None:
    both_at_once(native, remote, local)


@pytest.mark.root
@given(remote=MANY, local=MANY)
@settings(max_examples=AT_ONCE_EXAMPLES)
def test_both_at_once(mounts: Mounts, remote: list[Words], local: list[Words]) -> None:
    both_at_once(mounts.stage(), remote, local)


@pytest.mark.root
@pytest.mark.long
@pytest.mark.timeout(LONG_SECONDS)
@given(remote=MANY, local=MANY)
@settings(max_examples=AT_ONCE_LONG)
def test_both_at_once_long(mounts: Mounts, remote: list[Words], local: list[Words]) -> None:
    both_at_once(mounts.stage(), remote, local)
