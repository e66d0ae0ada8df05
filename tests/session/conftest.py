from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.session.kernel import Agent, Kernel
from tests.session.memory import MemoryDisk
from tests.session.scenes import SCENES, Scene


@pytest.fixture
def disk() -> Iterator[MemoryDisk]:
    with MemoryDisk() as made:
        yield made


@pytest.fixture
def kernel(disk: MemoryDisk) -> Iterator[Kernel]:
    """A client kernel that has negotiated."""
    made = Kernel(disk)
    made.init()
    yield made
    made.session.close()


@pytest.fixture
def agent(kernel: Kernel) -> Agent:
    """A registered agent."""
    return Agent(kernel).register()


@pytest.fixture(params=SCENES)
def scene(request: pytest.FixtureRequest, kernel: Kernel, agent: Agent) -> Scene:
    """Each kind of step, armed."""
    made = SCENES[request.param](kernel, agent)
    made.kernel.disk.journal.clear()
    return made
