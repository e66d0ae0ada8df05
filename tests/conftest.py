"""What all tests share: who may run them, the stages, and the log of a mount in a failure.

Environment: ``CI=true`` turns a test that would be skipped for want of root into a
failure.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.kept import Kept
from tests.stage import FarwatchStage, NativeStage
from tests.workers import InOrder, Workers

settings.register_profile(
    "farwatch",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    print_blob=True,
)
settings.load_profile("farwatch")


def pytest_configure(config: pytest.Config) -> None:
    """The modes of new files are part of what is compared; who is ended tidies up.

    What is started here is to be ended by signals as anywhere, also below nohup(1).
    """
    os.umask(0o022)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    config.pluginmanager.register(InOrder())
    if config.getoption("numprocesses", None):
        config.pluginmanager.register(Workers())


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
    """Show what the stages that are kept have said, where a test of them fails."""
    report = yield
    if report.failed:
        for name, used in getattr(item, "funcargs", {}).items():
            if isinstance(used, Kept):
                report.sections.append((f"logs of the {name}", used.log()))
    return report


class Mounts(Kept[bool, FarwatchStage]):
    """Long-lived farwatch mounts."""

    def __init__(self) -> None:
        super().__init__(lambda reading: FarwatchStage(reading=reading))

    def stage(self, *, reading: bool = False) -> FarwatchStage:
        """The mount on which reading kinds are never, or always, in force (see ``stage``)."""
        return self.of(reading)


@pytest.fixture(scope="module")
def mounts() -> Iterator[Mounts]:
    """Mounts for a module's tests.  They need root: mark the test so.

    Not for the session's: each of them hears of all that later tests do to the file system.
    """
    with Mounts() as kept:
        yield kept


@pytest.fixture
def mounted(mounts: Mounts) -> FarwatchStage:
    """The module's farwatch mount for what does not read."""
    return mounts.stage()


@pytest.fixture(scope="session")
def native() -> Iterator[NativeStage]:
    """A plain directory: the specification."""
    with NativeStage() as stage:
        yield stage
