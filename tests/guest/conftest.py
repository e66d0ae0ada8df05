"""Guests that live as long as the tests of a module; what they said, where a test of them fails.

Without QEMU, a kernel or what goes into the guest these tests are skipped, each by name;
where CI=true they fail instead.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.guest.absent import NoGuest
from tests.guest.initramfs import Image, image
from tests.guest.load import Scene
from tests.guest.machine import Machine, require_programs
from tests.guest.stage import GuestStage, farwatch_stage
from tests.kept import Kept


class Images:
    """One image for each series of kernels, made when it is first asked for."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made: dict[str, Image] = {}

    def of(self, series: str) -> Image:
        """Fails the test, or skips it, if there is none."""
        if series not in self._made:
            try:
                require_programs()
                self._made[series] = image(series, self._directory)
            except NoGuest as absent:
                do_without(absent)
        return self._made[series]


def do_without(absent: NoGuest) -> NoReturn:
    """Skip the test, which CI=true forbids."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"no guest, and CI=true forbids skipping: {absent}", pytrace=False)
    pytest.skip(f"no guest: {absent}")


class Guests(Kept[tuple[str, bool], GuestStage]):
    """Long-lived guests with a farwatch mount."""

    def __init__(self, images: Images) -> None:
        super().__init__(lambda key: farwatch_stage(images.of(key[0]), reading=key[1]))

    def stage(self, series: str = "6.12", *, reading: bool = False) -> GuestStage:
        """The guest in which reading kinds are never, or always, in force."""
        return self.of((series, reading))


@pytest.fixture(scope="session")
def images() -> Iterator[Images]:
    with tempfile.TemporaryDirectory(prefix="farwatch-test-", dir="/tmp") as directory:
        yield Images(Path(directory))


@pytest.fixture(scope="module")
def guests(images: Images) -> Iterator[Guests]:
    with Guests(images) as kept:
        yield kept


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A directory of the host for a daemon to share."""
    path = tmp_path / "export"
    path.mkdir()
    return path


@pytest.fixture(scope="module")
def machine(images: Images) -> Iterator[Machine]:
    """A guest without any share."""
    with Machine(images.of("6.12")) as made:
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the guests without a stage have said, where a test of them fails."""
    report = yield
    if report.failed:
        used = getattr(item, "funcargs", {}).values()
        for one in used:
            if isinstance(one, Machine | Scene):
                report.sections.append(("guest", one.log()))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name each test that was skipped for want of a guest."""
    for report in terminalreporter.getreports("skipped"):
        if "no guest: " in str(report.longrepr):
            terminalreporter.write_line(f"skipped, there is no guest: {report.nodeid}")
