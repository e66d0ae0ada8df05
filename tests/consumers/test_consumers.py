"""Programs that watch, unmodified: what they say of a mount is what they say natively."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Mounts
from tests.consumers.consumer import Consumer, act, prepared, program, told
from tests.stage import FarwatchStage, NativeStage, Stage

PREPARED = """
mkdir d
mkdir d/sub
mkdir e
write d/x hello
write d/sub/y hello
"""
CHANGES = """
write d/new hello
append d/x more
chmod d/x 600
rename d/x d/moved
rename d/moved e/moved
unlink d/new
write d/sub/y other
mkdir d/made
{made}
write d/made/z hello
rename d/made e/made
{said}
append e/made/z more
unlink e/made/z
rmdir e/made
mkfile last
"""
READS = """
read d/x
said CLOSE_NOWRITE x
append d/x more
said CLOSE_WRITE x
readdir d/sub
said CLOSE_NOWRITE sub
unlink d/x
mkfile d/last
"""
Tells = Callable[[Stage, float], list[str]]


def inotifywait_recursive(stage: Stage, pace: float) -> list[str]:
    root, directory = prepared(stage, PREPARED)
    kinds = "modify,attrib,close_write,move,create,delete,delete_self,move_self"
    command = ["inotifywait", "-m", "-r", "-e", kinds, "--format", "%w %e %f", directory]
    with Consumer(command, "/") as consumer:
        consumer.wait_until_ready("Watches established")
        act(root, CHANGES.format(made="watches 5", said=""), consumer, pace)
        consumer.wait_for_line("CLOSE_WRITE", "last")
        return told(consumer.lines, directory)


def inotifywait_everything(stage: Stage, pace: float) -> list[str]:
    root, directory = prepared(stage, PREPARED)
    command = ["inotifywait", "-m", "--format", "%w %e %f", f"{directory}/d", f"{directory}/d/x"]
    with Consumer(command, "/") as consumer:
        consumer.wait_until_ready("Watches established")
        act(root, READS, consumer, pace)
        consumer.wait_for_line("CLOSE_WRITE", "last")
        return told(consumer.lines, directory)


def watchdog_told(stage: Stage, pace: float) -> list[str]:
    root, directory = prepared(stage, PREPARED)
    with Consumer([*program("watchdog"), directory], "/") as consumer:
        consumer.wait_until_ready()
        consumer.wait_for_watches(4)
        # It looks into what was made, and into what was moved to say what was moved along.
        script = CHANGES.format(made="said created dir d/made", said="said moved e/made/z")
        act(root, script, consumer, pace)
        consumer.wait_for_line("closed", "last")
        changes = [line for line in consumer.lines if not line.startswith(("opened", "closed_no"))]
        return told(changes, directory)


def watchfiles_told(stage: Stage, pace: float) -> list[str]:
    """It gathers changes in sets, and leaves out that what is added in a set was modified, too.

    Where one set ends is a matter of luck, so neither the order is compared nor
    what is said of the content of new files.  It takes a while to follow a directory
    that was moved.
    """
    root, directory = prepared(stage, PREPARED)
    with Consumer([*program("watchfiles"), directory], "/") as consumer:
        consumer.wait_until_ready()
        act(root, CHANGES.format(made="watches 5", said="said added e/made"), consumer, pace)
        consumer.wait_for_line("set ", "last")
        lines = set(told(consumer.lines, directory))
        new = {line.replace("added", "modified") for line in lines if line.startswith("added")}
        return sorted(line for line in lines - new if not line.startswith(("set", "ready")))


def tail(stage: Stage, _pace: float) -> list[str]:
    """Content appended, and the name passed on to a new file; ``-s`` bounds its fall-back."""
    root, directory = prepared(stage, "write log one\n")
    (root / "log").write_text("one\n")
    with Consumer(["tail", "-F", "-s", "0.05", f"{directory}/log"], "/") as consumer:
        consumer.wait_for_line("one")
        with (root / "log").open("a") as log:
            log.write("two\n")
        consumer.wait_for_line("two")
        (root / "log").rename(root / "log.1")
        (root / "log").write_text("three\n")
        consumer.wait_for_line("three")
        with (root / "log").open("a") as log:
            log.write("four\n")
        consumer.wait_for_line("four")
        return [line for line in consumer.lines if not line.startswith("tail:")]


FANOTIFY = """
overwrite d/x HELLO
append d/sub/y more
write d/new hello
read d/x
readdir d
open h rw d/x
put h 12345
get h
close h
write last end
"""


def fanotify_inodes(stage: Stage, pace: float) -> list[str]:
    root, directory = prepared(stage, PREPARED)
    paths = [f"{directory}/d", f"{directory}/d/sub/y", directory]
    with Consumer([*program("fanotify"), "inode", *paths], "/") as consumer:
        consumer.wait_until_ready()
        # Who wants descriptors is known from when the source is asked for opens.
        stage.wait_for_reading(OPENS)
        act(root, FANOTIFY, pace=pace)
        consumer.wait_for_line("CLOSE_WRITE", "last")
        return summary(told(consumer.lines, directory))


OPENS = 0x20 | 0x10
"""IN_OPEN and IN_CLOSE_NOWRITE of sys/inotify.h."""


def summary(lines: list[str]) -> list[str]:
    """Per path which kinds were told, and the content that the last event showed.

    fanotify merges what waits in its queue, so how many events there are, and which
    content an early one shows, is a matter of luck.
    """
    kinds: dict[str, set[str]] = {}
    last: dict[str, str] = {}
    for line in lines:
        words, path, last_content = line.split(" ", 2)
        kinds.setdefault(path, set()).update(words.split("|"))
        last[path] = last_content
    return [f"{path} {sorted(kinds[path])} {last[path]}" for path in sorted(kinds)]


@contextmanager
def bound(directory: Path) -> Iterator[None]:
    """A mount of its own: what a mount mark hears natively goes through that mount."""
    subprocess.run(["mount", "--bind", directory, directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


def fanotify_mount(stage: Stage, pace: float) -> list[str]:
    root, directory = prepared(stage, PREPARED)
    with Consumer([*program("fanotify"), "mount", directory], "/") as consumer:
        consumer.wait_until_ready()
        # Who wants descriptors is known from when the source is asked for opens.
        stage.wait_for_reading(OPENS)
        act(root, FANOTIFY, pace=pace)
        consumer.wait_for_line("CLOSE_WRITE", "last")
        return summary(told(consumer.lines, directory))


def dnotify(stage: Stage, pace: float) -> list[str]:
    """Signals have no order among kinds, so which kinds came is compared."""
    root, directory = prepared(stage, PREPARED)
    with Consumer([*program("dnotify"), f"{directory}/d"], "/") as consumer:
        consumer.wait_until_ready()
        for line, kind in [
            ("mkfile d/new", "CREATE"),
            ("append d/x more", "MODIFY"),
            ("chmod d/x 600", "ATTRIB"),
            ("rename d/x d/z", "RENAME"),
            ("unlink d/z", "DELETE"),
        ]:
            act(root, line, pace=pace)
            consumer.wait_for_line(kind)
        return sorted(set(consumer.lines))


ON_THEIR_OWN = (fanotify_inodes,)
"""Those that need a mount on which nobody else wants reading kinds."""

CONSUMERS: list[Tells] = [
    inotifywait_recursive,
    inotifywait_everything,
    watchdog_told,
    watchfiles_told,
    tail,
    fanotify_inodes,
    dnotify,
]
READERS = (inotifywait_everything, watchdog_told)
"""Those that want OPEN, ACCESS or CLOSE_NOWRITE."""


def require_same(tells: Tells, spec: Stage, stage: Stage) -> None:
    """What waits together is merged: where the machine is busy a longer pause may be needed."""
    *quick, slow = stage.paces
    if any(tells(spec, pace) == tells(stage, pace) for pace in quick):
        return
    wanted, got = tells(spec, slow), tells(stage, slow)
    assert got == wanted


@pytest.mark.parametrize("tells", CONSUMERS, ids=lambda tells: tells.__name__)
def test_natively_twice(tells: Tells, native: NativeStage) -> None:
    """The harness: the program says the same of the same changes, and says something."""
    if tells is fanotify_inodes and os.geteuid() != 0:
        pytest.skip("fanotify with descriptors needs root")
    require_same(tells, native, native)
    assert tells(native, native.paces[0])


@pytest.mark.root
@pytest.mark.parametrize("tells", CONSUMERS, ids=lambda tells: tells.__name__)
def test_on_a_mount(tells: Tells, native: NativeStage, mounts: Mounts) -> None:
    if tells in ON_THEIR_OWN:
        with FarwatchStage() as stage:
            require_same(tells, native, stage)
    else:
        require_same(tells, native, mounts.stage(reading=tells in READERS))


@pytest.mark.root
def test_fanotify_mount_mark() -> None:
    """On a mount of its own, for a mount mark switches the interest filter off."""
    with NativeStage() as native, bound(native.acting), FarwatchStage() as stage:
        require_same(fanotify_mount, native, stage)


@pytest.mark.root
def test_fanotify_mount_mark_natively_twice() -> None:
    with NativeStage() as native, bound(native.acting):
        require_same(fanotify_mount, native, native)
        assert any("MODIFY" in line for line in fanotify_mount(native, native.paces[0]))
