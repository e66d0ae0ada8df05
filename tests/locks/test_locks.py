"""flock(2) and fcntl(2) locks of programs on MNT and on SRC: each sees the other's."""

from __future__ import annotations

import errno
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.locks.locker import Locker
from tests.mounting.mounted import SECONDS, Area, wait_until

pytestmark = pytest.mark.root

SORTS = ("flock", "posix", "ofd")
SIDES = ("mnt mnt", "mnt src", "src mnt")
GRANTED, HELD = (0, None), (errno.EAGAIN, None)


class Scene:
    """A file and the processes that lock it, each on its side of the mount."""

    def __init__(self, area: Area, name: str, mode: int, stack: ExitStack) -> None:
        self._area = area
        self._stack = stack
        self.name = name
        (area.src / name).write_text("0123456789")
        (area.src / name).chmod(mode)

    def path(self, side: str) -> Path:
        return (self._area.mnt if side == "mnt" else self._area.src) / self.name

    def locker(self, side: str, mode: str = "rw") -> Locker:
        """A process that has the file open, as "f"."""
        made = self._stack.enter_context(Locker())
        made.do("open", "f", str(self.path(side)), mode)
        return made


@pytest.fixture(
    params=[
        pytest.param(0o644, id="passthrough"),
        pytest.param(0o644 | stat.S_ISUID, id="served", marks=pytest.mark.long),
    ]
)
def scene(area: Area, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A file whose content passes the server by, and one whose does not (it is set-user-id)."""
    with ExitStack() as stack:
        scene = Scene(area, f"f-{request.node.name}"[:200], request.param, stack)
        yield scene
        scene.path("src").unlink()


@pytest.fixture(params=SIDES)
def sides(request: pytest.FixtureRequest) -> list[str]:
    return str(request.param).split()


@pytest.mark.parametrize("sort", SORTS)
def test_exclusive_and_shared(scene: Scene, sides: list[str], sort: str) -> None:
    one, two = (scene.locker(side) for side in sides)
    one.do("lock", "f", sort, "write")
    assert two.try_("lock", "f", sort, "write") == HELD
    assert two.try_("lock", "f", sort, "read") == HELD
    one.do("lock", "f", sort, "read")
    two.do("lock", "f", sort, "read")
    assert two.try_("lock", "f", sort, "write") == HELD
    one.do("lock", "f", sort, "none")
    two.do("lock", "f", sort, "write")
    assert one.try_("lock", "f", sort, "read") == HELD


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("end", ["unlock", "downgrade", "close", "exit", "kill"])
def test_waiting_for_a_lock(scene: Scene, sides: list[str], sort: str, end: str) -> None:
    one, two = (scene.locker(side) for side in sides)
    one.do("lock", "f", sort, "write")
    two.start("lock", "f", sort, "read" if end == "downgrade" else "write", 0, 0, True)
    two.wait_until_blocked()
    if end in ("unlock", "downgrade"):
        one.do("lock", "f", sort, "none" if end == "unlock" else "read")
    elif end == "close":
        one.do("close", "f")
    elif end == "exit":
        one.finish()
    else:
        one.kill()
    assert two.answer() == GRANTED
    if end != "downgrade":
        assert scene.locker(sides[0]).try_("lock", "f", sort, "write") == HELD


@pytest.mark.parametrize("sort", SORTS)
def test_a_signal_ends_waiting(scene: Scene, sides: list[str], sort: str) -> None:
    one, two = (scene.locker(side) for side in sides)
    one.do("lock", "f", sort, "write")
    two.do("on_signal")
    two.start("lock", "f", sort, "write", 0, 0, True)
    two.wait_until_blocked()
    two.signal()
    assert two.answer() == (errno.EINTR, None)
    two.start("lock", "f", sort, "write", 0, 0, True)
    two.wait_until_blocked()
    two.kill()
    one.do("lock", "f", sort, "none")
    three = scene.locker(sides[1])
    three.do("lock", "f", sort, "write")


@pytest.mark.parametrize("sort", SORTS)
def test_many_wait_and_each_has_it_once(scene: Scene, sort: str) -> None:
    first = scene.locker("mnt")
    first.do("lock", "f", sort, "write")
    others = [scene.locker(side) for side in ("mnt", "src", "mnt", "src", "mnt")]
    for each in others:
        each.start("lock", "f", sort, "write", 0, 0, True)
        each.wait_until_blocked()
    first.do("lock", "f", sort, "none")
    left = list(others)
    while left:
        wait_until(lambda: any(each.has_answered() for each in left), "one has the lock")
        (lucky,) = [each for each in left if each.has_answered()]
        assert lucky.answer() == GRANTED
        assert first.try_("lock", "f", sort, "read") == HELD
        left.remove(lucky)
        lucky.do("lock", "f", sort, "none")


def test_who_holds_a_lock(scene: Scene) -> None:
    mine, other, host = scene.locker("mnt"), scene.locker("mnt"), scene.locker("src")
    mine.do("lock", "f", "posix", "write", 10, 5)
    host.do("lock", "f", "posix", "read", 20, 0)
    assert other.do("ask", "f", "posix", "read") == ["write", 10, 5, mine.pid]
    assert other.do("ask", "f", "posix", "write", 15) == ["read", 20, 0, host.pid]
    assert other.do("ask", "f", "posix", "read", 15) is None
    assert mine.do("ask", "f", "posix", "write", 0, 15) is None
    assert host.do("ask", "f", "posix", "read") == ["write", 10, 5, -1]
    # Of such a question the client's kernel passes no process on.
    assert other.do("ask", "f", "ofd", "read") == ["write", 10, 5, -1]


def test_flock_and_fcntl_do_not_meet(scene: Scene, sides: list[str]) -> None:
    one, two = (scene.locker(side) for side in sides)
    one.do("lock", "f", "flock", "write")
    two.do("lock", "f", "posix", "write")
    assert two.try_("lock", "f", "flock", "read") == HELD
    assert one.try_("lock", "f", "posix", "read") == HELD


@pytest.mark.parametrize("other", ["mnt", "src"])
def test_a_process_loses_its_locks_with_any_descriptor(scene: Scene, other: str) -> None:
    one, two = scene.locker("mnt"), scene.locker(other)
    for way in ("open", "dup"):
        one.do("open", "g", str(scene.path("mnt"))) if way == "open" else one.do("dup", "f", "g")
        one.do("lock", "f", "posix", "write")
        assert two.try_("lock", "f", "posix", "read") == HELD
        one.do("close", "g")
        two.do("lock", "f", "posix", "read")
        two.do("lock", "f", "posix", "none")


@pytest.mark.parametrize("sort", ["flock", "ofd"])
def test_an_open_file_keeps_its_lock_to_its_last_descriptor(scene: Scene, sort: str) -> None:
    one, two = scene.locker("mnt"), scene.locker("src")
    one.do("lock", "f", sort, "write")
    one.do("open", "g", str(scene.path("mnt")))
    assert one.try_("lock", "g", sort, "read") == HELD
    one.do("close", "g")
    one.do("dup", "f", "h")
    one.do("close", "f")
    assert two.try_("lock", "f", sort, "read") == HELD
    one.do("child", "child")
    one.do("close", "h")
    assert two.try_("lock", "f", sort, "read") == HELD
    one.do("end", "child")
    wait_until(lambda: two.try_("lock", "f", sort, "read") == GRANTED, "the lock has gone")


def test_a_child_has_locks_of_its_own(scene: Scene) -> None:
    """One open file, and two processes whose locks are on it."""
    parent, other = scene.locker("mnt"), scene.locker("src")
    parent.do("lock", "f", "posix", "write", 0, 1)
    child = parent.do("child", "child")
    assert parent.try_("tell", "child", "lock", "f", "posix", "write", 0, 1) == HELD
    parent.do("tell", "child", "lock", "f", "posix", "write", 5, 1)
    assert parent.do("ask", "f", "posix", "write", 5, 1) == ["write", 5, 1, child]
    assert parent.try_("lock", "f", "posix", "write", 5, 1) == HELD
    assert other.try_("lock", "f", "posix", "write", 5, 1) == HELD
    parent.do("end", "child")
    other.do("lock", "f", "posix", "write", 5, 1)
    assert other.try_("lock", "f", "posix", "write", 0, 1) == HELD


@pytest.mark.parametrize("sort", SORTS)
def test_nothing_of_a_lock_stays_in_the_kernel(scene: Scene, sort: str) -> None:
    """With passthrough the file that was opened first is the kernel's as long as any is open."""
    first, second, other = scene.locker("mnt"), scene.locker("mnt"), scene.locker("src")
    first.do("lock", "f", sort, "write")
    first.do("close", "f")
    wait_until(
        lambda: other.try_("lock", "f", sort, "write") == GRANTED, "nothing of the lock is left"
    )
    assert second.try_("lock", "f", sort, "read") == HELD


def test_locks_of_files_opened_for_one_thing_only(scene: Scene) -> None:
    """Locks of one process through descriptors that are open for different things."""
    other = scene.locker("src")
    for first, then in (("r", "w"), ("w", "r"), ("r", "rw")):
        one = scene.locker("mnt", first)
        one.do("open", "g", str(scene.path("mnt")), then)
        kinds = {"r": "read", "w": "write", "rw": "write"}
        one.do("lock", "f", "posix", kinds[first], 0, 4)
        one.do("lock", "g", "posix", kinds[then], 2, 4)
        asked = other.do("ask", "f", "posix", "write")
        assert asked == [kinds[first], 0, 2, -1]
        assert other.do("ask", "f", "posix", "write", 2)[:3] == [kinds[then], 2, 4]
        assert other.do("ask", "f", "posix", "write", 6) is None
        if first != "w":
            assert one.try_("lock", "f", "posix", "write")[0] == errno.EBADF
        one.do("close", "f")
        wait_until(
            lambda: other.do("ask", "f", "posix", "write") is None,
            "the end of all its locks of the file",
        )
        one.kill()


def test_whoever_reads_loses_the_lock_with_one_of_two(area: Area) -> None:
    """Nobody need tell that a file is closed which is open for reading, until it was locked."""
    (area.src / "read").write_text("x")
    path = str(area.mnt / "read")
    with Locker() as one, Locker() as two:
        one.do("open", "f", path, "r")
        one.do("lock", "f", "posix", "read")
        one.do("close", "f")
        two.do("open", "f", str(area.src / "read"))
        wait_until(lambda: two.try_("lock", "f", "posix", "write") == GRANTED, "the end of it")
        two.do("lock", "f", "posix", "none")
        one.do("open", "f", path, "r")
        one.do("dup", "f", "g")
        one.do("lock", "f", "posix", "read")
        assert two.try_("lock", "f", "posix", "write") == HELD
        one.do("close", "g")
        two.do("lock", "f", "posix", "write")


def test_waiting_for_each_other(scene: Scene) -> None:
    one, two = scene.locker("mnt"), scene.locker("mnt")
    one.do("lock", "f", "posix", "write", 0, 1)
    two.do("lock", "f", "posix", "write", 1, 1)
    one.start("lock", "f", "posix", "write", 1, 1, True)
    one.wait_until_blocked()
    assert two.try_("lock", "f", "posix", "write", 0, 1, True) == (errno.EDEADLK, None)
    two.do("lock", "f", "posix", "none", 1, 1)
    assert one.answer() == GRANTED


def test_names_do_not_matter(area: Area, scene: Scene) -> None:
    one, two = scene.locker("mnt"), scene.locker("src")
    scene.path("mnt").rename(area.mnt / "renamed")
    (area.src / "linked").hardlink_to(area.src / "renamed")
    (area.src / "renamed").unlink()
    one.do("lock", "f", "posix", "write")
    one.do("lock", "f", "flock", "write")
    two.do("open", "linked", str(area.mnt / "linked"))
    for sort in ("posix", "flock"):
        assert two.try_("lock", "linked", sort, "read") == HELD
    (area.mnt / "linked").unlink()
    for sort in ("posix", "flock"):
        assert two.try_("lock", "f", sort, "read") == HELD
        one.do("lock", "f", sort, "none")
        two.do("lock", "f", sort, "write")
    (area.src / scene.name).touch()


def test_programs_of_every_day(area: Area) -> None:
    """flock(1), as a script has it, across the mount."""
    lock, log = area.mnt / "lockfile", area.src / "log"
    script = (
        'for i in 1 2 3 4 5; do flock "$1" sh -c "read n <$2 || n=0; echo \\$((n+1)) >$2"; done'
    )
    log.write_text("0\n")
    pids = [
        os.posix_spawn("/bin/sh", ["sh", "-c", script, "sh", str(where / "lockfile"), str(at)],
                       dict(os.environ))
        for where, at in ((area.mnt, area.mnt / "log"), (area.src, log)) * 2
    ]  # fmt: skip
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * 4
    assert log.read_text() == "20\n"
    lock.unlink()


def test_a_server_that_dies_leaves_no_lock(area: Area) -> None:
    """A mount of its own, whose server is killed.

    Programs that read and write past the server may do so until they close the file, and for
    so long its locks stay: they are the kernel's.
    """
    home = area.home / "own"
    home.mkdir()
    mine = Area(home)
    with mine.mounted() as process, Locker() as one, Locker() as two, Locker() as three:
        for each, where in ((one, mine.mnt), (two, mine.src), (three, mine.mnt)):
            each.do("open", "f", str(where / "f"))
        for sort in ("flock", "posix"):
            one.do("lock", "f", sort, "write")
        three.start("lock", "f", "flock", "write", 0, 0, True)
        three.wait_until_blocked()
        (server,) = mine.servers(process.pid)
        os.kill(server, signal.SIGKILL)
        process.wait(SECONDS)
        assert three.answer()[0] in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)
        one.kill()
        three.kill()
        for sort in ("flock", "posix"):
            wait_until(
                lambda sort=sort: two.try_("lock", "f", sort, "write") == GRANTED,  # type: ignore[misc]
                "nothing of the lock is left",
            )
