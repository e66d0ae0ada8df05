"""A replay is acknowledged if it is exactly what is armed, and never a real operation.

Whether the agent's requests are known by their marks (test_marked) or by their thread
(test_by_thread): what is the same for both.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.session import kernel as k
from tests.session.kernel import Agent, Kernel
from tests.session.memory import MemoryDisk
from tests.session.ordinary import OrdinaryAgent, OrdinaryKernel
from tests.session.scenes import CHANGING, Exact, Scene, Untouched, refused
from tests.session.test_hostile import BODIES


@pytest.fixture(params=[Kernel, OrdinaryKernel], ids=["by mark", "by thread"])
def kernel(request: pytest.FixtureRequest, disk: MemoryDisk) -> Iterator[Kernel]:
    made: Kernel = request.param(disk)
    made.init()
    yield made
    made.session.close()
    if isinstance(made, OrdinaryKernel):
        assert all(process.closed for process in made.processes.held)


@pytest.fixture
def agent(kernel: Kernel) -> Agent:
    if isinstance(kernel, OrdinaryKernel):
        return OrdinaryAgent(kernel).register()
    return Agent(kernel).register()


def test_the_exact_request_is_acknowledged_and_touches_nothing(scene: Scene) -> None:
    with Untouched(scene.kernel.disk):
        scene.send()


def test_any_other_opcode_is_refused(scene: Scene) -> None:
    for opcode in CHANGING:
        same = {scene.exact.opcode, k.RENAME2 if scene.exact.opcode == k.RENAME else 0}
        if isinstance(scene.kernel, OrdinaryKernel) and scene.exact.opcode in (k.READ, k.WRITE):
            same.add(k.OPEN)  # the step before may be tried again
        if opcode not in same:
            refused(scene, scene.exact._replace(opcode=opcode))
            refused(scene, Exact(opcode, scene.exact.node, BODIES[opcode]))
    scene.send()


def test_another_node_is_refused(scene: Scene) -> None:
    other = scene.kernel.mkdir("elsewhere").node
    scene.kernel.disk.journal.clear()
    for node in (other, 2, 0, scene.exact.node + 1, 1 << 40):
        if node != scene.exact.node and scene.exact.opcode not in (k.WRITE, k.READ):
            refused(scene, scene.exact._replace(node=node))
    scene.send()


def test_another_name_is_refused(scene: Scene) -> None:
    if not scene.name:
        return
    for name in (b"z", b"", b"..", b".", b"x/y", scene.name + scene.name, b"a" * 300):
        body = scene.exact.body.replace(scene.name + b"\0", name + b"\0")
        assert body != scene.exact.body
        refused(scene, scene.exact._replace(body=body))
    scene.send()


def test_a_second_time_is_refused(scene: Scene) -> None:
    scene.send()
    if scene.exact.opcode != k.OPEN:  # an open may be tried again
        refused(scene, scene.exact)


def test_after_the_batch_it_is_refused(scene: Scene) -> None:
    scene.agent.wait(scene.batch.number)
    refused(scene, scene.exact)
