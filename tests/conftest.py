"""What all tests share: who may run them, the stages, and the log of a mount in a failure.

Environment: ``CI=true`` turns a test that would be skipped for want of root into a
failure.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.stage import FarwatchStage, NativeStage

settings.register_profile(
    "farwatch",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    print_blob=True,
)
settings.load_profile("farwatch")


def pytest_configure() -> None:
    """The modes of new files are part of what is compared; who is ended tidies up.

    What is started here is to be ended by signals as anywhere, also below nohup(1).
    """
    os.umask(0o022)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated", returncode=143))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked ``root`` are skipped for others; where CI=true they fail instead."""
    if item.get_closest_marker("root") is None or os.geteuid() == 0:
        return
    if os.environ.get("CI") == "true":
        pytest.fail("this test needs root, and CI=true forbids skipping it", pytrace=False)
    pytest.skip("needs root")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the mount under test has said, where a test of it fails."""
    report = yield
    used = getattr(item, "funcargs", {}).get("mounts")
    if isinstance(used, Mounts) and report.failed:
        report.sections.append(("logs of the mounts", used.log()))
    return report


class Mounts:
    """Long-lived farwatch mounts; one is made anew only after it has died."""

    def __init__(self) -> None:
        self._stages: dict[bool, tuple[FarwatchStage, contextlib.ExitStack]] = {}

    def stage(self, *, reading: bool = False) -> FarwatchStage:
        """The mount on which reading kinds are never, or always, in force (see ``stage``)."""
        if reading in self._stages and not self._stages[reading][0].alive():
            self._stages.pop(reading)[1].close()
        if reading not in self._stages:
            stack = contextlib.ExitStack()
            stage = stack.enter_context(FarwatchStage(reading=reading))
            self._stages[reading] = stage, stack
        return self._stages[reading][0]

    def log(self) -> str:
        return "\n".join(stage.log()[-20000:] for stage, _ in self._stages.values())

    def close(self) -> None:
        with contextlib.ExitStack() as all_of_them:
            for _, stack in self._stages.values():
                all_of_them.push(stack)
            self._stages.clear()


@pytest.fixture(scope="module")
def mounts() -> Iterator[Mounts]:
    """Mounts for a module's tests.  They need root: mark the test so.

    Not for the session's: each of them hears of all that later tests do to the file system.
    """
    kept = Mounts()
    try:
        yield kept
    finally:
        kept.close()


@pytest.fixture
def mounted(mounts: Mounts) -> FarwatchStage:
    """The module's farwatch mount for what does not read."""
    return mounts.stage()


@pytest.fixture(scope="session")
def native() -> Iterator[NativeStage]:
    """A plain directory: the specification."""
    with NativeStage() as stage:
        yield stage
