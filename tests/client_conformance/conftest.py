"""The stages that the tests of this directory share."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator

import pytest

from tests.client_conformance.stage import ClientStage, Mode, Transport


class Clients:
    """Long-lived servers, each with a client; one is made anew only after it has died."""

    def __init__(self) -> None:
        self._stages: dict[
            tuple[Transport, Mode, bool], tuple[ClientStage, contextlib.ExitStack]
        ] = {}

    def stage(self, transport: Transport, mode: Mode, *, reading: bool = False) -> ClientStage:
        """The client on which reading kinds are never, or always, in force (see ``stage``)."""
        key = (transport, mode, reading)
        if key in self._stages and not self._stages[key][0].alive():
            self._stages.pop(key)[1].close()
        if key not in self._stages:
            stack = contextlib.ExitStack()
            made = stack.enter_context(ClientStage(transport, mode, reading=reading))
            self._stages[key] = made, stack
        return self._stages[key][0]

    def log(self) -> str:
        return "\n".join(stage.log()[-20000:] for stage, _ in self._stages.values())

    def close(self) -> None:
        with contextlib.ExitStack() as all_of_them:
            for _, stack in self._stages.values():
                all_of_them.push(stack)
            self._stages.clear()


@pytest.fixture(scope="module")
def clients() -> Iterator[Clients]:
    """Clients for a module's tests.  Their servers need root: mark the test so.

    Not for the session's: each server hears of all that later tests do to the file system.
    """
    kept = Clients()
    try:
        yield kept
    finally:
        kept.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what server and client have said, where a test of them fails."""
    report = yield
    used = getattr(item, "funcargs", {}).get("clients")
    if isinstance(used, Clients) and report.failed:
        report.sections.append(("logs of servers and clients", used.log()))
    return report
