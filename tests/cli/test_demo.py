"""``farwatch demo``: what it compares, what it says, and that it leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from farwatch.cli.demo import rehearsal
from farwatch.cli.demo.changes import ACTS, WATCHED, Act
from farwatch.cli.demo.comparison import kinds, streams
from farwatch.cli.demo.interrupts import Interrupts
from farwatch.cli.demo.observer import Heard
from farwatch.cli.demo.rehearsal import Hearing, Outcome
from farwatch.cli.demo.show import show
from farwatch.cli.demo.stage import SECOND_PLACE, Mounter
from farwatch.cli.demo.view import summary
from farwatch.cli.failure import Failure
from farwatch.events import Mask
from farwatch.linux.mounts import parse_mountinfo
from tests.cli.bind import bind_mount


def heard(mask: int, name: str = "x", cookie: int = 0, watch: str = "d", at: int = 0) -> Heard:
    return Heard(at, watch, mask, cookie, name)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the demo makes its directory; the test fails if anything stays there."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield tmp_path
    mounts = parse_mountinfo(Path("/proc/self/mountinfo").read_bytes())
    below = os.fsencode(tmp_path)
    assert [mount.mount_point for mount in mounts if mount.mount_point.startswith(below)] == []
    assert list(tmp_path.iterdir()) == []


def shown(mounter: Mounter, terminal: bool = False) -> tuple[int, str]:
    output = StringIO()
    console = Console(file=output, force_terminal=terminal, highlight=False, width=120)
    return show(0, mounter, console), output.getvalue()


def test_cookies_are_numbered_and_identical_neighbours_are_one() -> None:
    one = [heard(Mask.MODIFY), heard(Mask.MODIFY), heard(Mask.MOVED_FROM, cookie=77)]
    two = [heard(Mask.MODIFY, at=9), heard(Mask.MOVED_FROM, cookie=5)]
    assert streams(one) == streams(two) == {"d": [(Mask.MODIFY, "x", 0), (Mask.MOVED_FROM, "x", 1)]}


def test_a_cookie_that_pairs_otherwise_is_a_difference() -> None:
    one = [heard(Mask.MOVED_FROM, cookie=7), heard(Mask.MOVED_TO, cookie=7)]
    two = [heard(Mask.MOVED_FROM, cookie=7), heard(Mask.MOVED_TO, cookie=8)]
    assert streams(one) != streams(two)


def test_kinds_are_words() -> None:
    assert kinds([heard(Mask.CREATE | Mask.ISDIR), heard(Mask.CLOSE_WRITE)]) == [
        "CREATE",
        "CLOSE_WRITE",
    ]


def test_the_summary_counts_and_compares() -> None:
    plain = Hearing([heard(Mask.CREATE, at=10_000)], started=0, complete=True)
    behind = Hearing([heard(Mask.CREATE, at=40_000)], started=0, complete=True)
    deaf = Hearing([], started=0, complete=True)
    assert summary([Outcome("a", plain, behind)]) == (
        "1 changes, every event equal; first event after 10 µs on a plain directory, "
        "40 µs behind farwatch (medians, 4.0 ×)"
    )
    assert summary([Outcome("a", plain, deaf)]) == "1 changes, 1 of them heard differently"


def test_what_did_not_arrive_in_time_is_not_equal() -> None:
    assert not Outcome("a", Hearing(complete=True), Hearing(complete=False)).equal


def test_an_interrupt_waits_until_it_is_not_held() -> None:
    steps = []
    before = signal.getsignal(signal.SIGINT)  # ignored, if the tests run in the background
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt), interrupts.held():
            with interrupts.held():
                signal.raise_signal(signal.SIGINT)
            steps.append("set up")
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(signal.SIGTERM)
    assert steps == ["set up"]
    assert ended.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGINT) is before


def test_only_root_may(monkeypatch: pytest.MonkeyPatch) -> None:
    from farwatch.cli.app import run

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run(["demo"]) == 1


@pytest.mark.root
@pytest.mark.parametrize("terminal", [False, True])
def test_on_a_mount_that_hears_everything(temporary: Path, terminal: bool) -> None:
    status, output = shown(bind_mount, terminal)
    assert status == 0, output
    for act in ACTS:
        assert act.title in output
    assert f"{len(ACTS)} changes, every event equal; first event after " in output
    assert terminal or "\x1b" not in output


@pytest.mark.root
def test_a_mount_that_hears_something_else(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlike(top: Path) -> None:
        (top / "project" / ("one" if top.name == "plain" else "other")).mkdir()

    monkeypatch.setattr(rehearsal, "ACTS", (Act("make a directory", (unlike,)),))
    status, output = shown(bind_mount)
    assert status == 1
    assert "behind: project: CREATE|ISDIR other" in output
    assert "1 changes, 1 of them heard differently" in output


@pytest.mark.root
def test_a_mount_that_hears_nothing(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def unrelated(_source: Path, mountpoint: Path) -> Iterator[None]:
        for name in WATCHED[1:]:
            (mountpoint / name).mkdir()
        yield

    monkeypatch.setattr(rehearsal, "ARRIVAL_SECONDS", 0.2)
    with pytest.raises(Failure, match="no event arrives: the mount"):
        shown(unrelated)


@pytest.mark.root
def test_a_mount_that_cannot_be_made(temporary: Path) -> None:
    @contextmanager
    def refusing(_source: Path, _mountpoint: Path) -> Iterator[None]:
        raise Failure("no such luck")
        yield

    with pytest.raises(Failure, match="no such luck"):
        shown(refusing)
    assert not list(SECOND_PLACE.glob("farwatch-demo-*"))


@pytest.mark.root
def test_where_the_temporary_directory_cannot_be_mounted(temporary: Path) -> None:
    @contextmanager
    def particular(source: Path, mountpoint: Path) -> Iterator[None]:
        if source.is_relative_to(temporary):
            raise Failure("not from there")
        with bind_mount(source, mountpoint):
            yield

    assert shown(particular)[0] == 0
    assert not list(SECOND_PLACE.glob("farwatch-demo-*"))


def demo(*options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "farwatch", "demo", *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.root
def test_the_real_thing(temporary: Path) -> None:
    with demo("--pause", "0") as process:
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, ""), output
    assert f"{len(ACTS)} changes, every event equal" in output


@pytest.mark.root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_leaves_nothing_behind(temporary: Path, number: signal.Signals) -> None:
    with demo("--pause", "60") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(ACTS[0].title):
                break
        # As a terminal does it: the whole group.
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert errors.strip() == ""


@pytest.mark.root
def test_interrupted_while_it_mounts(temporary: Path) -> None:
    with demo() as process:
        # Its directory is the first thing that it makes.
        while not list(temporary.iterdir()) and process.poll() is None:
            pass
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip() == ""
