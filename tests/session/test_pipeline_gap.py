"""How the source's thread hears of a gap: from the source, from whoever knows, from a fault."""

from __future__ import annotations

import pytest

from farwatch.events import Mask, Record
from farwatch.session.openmodes import OpenModes
from farwatch.session.pipeline import Pipeline
from tests.session.kernel import ROOT, Agent, Kernel
from tests.session.memory import MemoryDisk
from tests.session.upkeeping import QuietSource

LOST = Record(int(Mask.Q_OVERFLOW), 0, None, None)


class Source(QuietSource):
    """A source that a pipeline can read."""

    wanted = 0

    def want(self, mask: int) -> None:
        self.wanted = mask

    def fileno(self) -> int:
        raise NotImplementedError  # nobody waits for it here


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def pipeline(disk: MemoryDisk, kernel: Kernel, agent: Agent, source: Source) -> Pipeline:
    """The root is watched, and that is seen; a is in it."""
    disk.do_file("a", b"1")
    modes = OpenModes(lambda thread, key: None)
    made = Pipeline(
        source, kernel.session, disk.node_at, disk.place_of, modes, lambda reply: None, frozenset()
    )
    agent.watch([(ROOT, 0, 0xFFF)])
    keep_up(made)
    return made


def keep_up(pipeline: Pipeline) -> None:
    while pipeline.keep_up_due is not None:
        pipeline.keep_up()


def told(agent: Agent) -> list[bytes]:
    names, batch = [], agent.wait()
    while batch is not None:
        names += [step.name for step in batch.steps]
        batch = agent.wait(batch.number)
    return list(dict.fromkeys(names))


def created(disk: MemoryDisk, name: str) -> Record:
    inode = disk.do_file(name)
    return Record(int(Mask.CREATE), 7, disk.place(name), inode.key)


def test_the_queue_has_overflowed(
    pipeline: Pipeline, source: Source, disk: MemoryDisk, agent: Agent
) -> None:
    """What is read with it is a part of the story; it is told by what is there."""
    before = created(disk, "before")
    disk.do_file("lost")
    disk.do_remove("before")
    source.waiting.append([before, LOST, created(disk, "after")])
    pipeline.deliver()
    assert pipeline.keep_up_due == 0.0
    keep_up(pipeline)
    assert sorted(told(agent)) == [b"after", b"lost"]
    assert not pipeline.is_behind()


def test_it_is_behind_until_the_difference_is_told(
    pipeline: Pipeline, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farwatch.session.upkeep._SLICE_SECONDS", 0.0)
    source.waiting.append([LOST])
    pipeline.deliver()
    pipeline.keep_up()
    assert pipeline.is_behind()
    keep_up(pipeline)
    assert not pipeline.is_behind()


def test_a_source_that_was_away(pipeline: Pipeline, disk: MemoryDisk, agent: Agent) -> None:
    disk.do_file("lost")
    pipeline.gap()
    keep_up(pipeline)
    assert told(agent) == [b"lost"]


def test_a_fault_is_a_gap(
    pipeline: Pipeline, source: Source, disk: MemoryDisk, agent: Agent,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A batch that could not be delivered is told all the same."""

    def fail(*_: object) -> None:
        raise RuntimeError("a test")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline._session, "deliver", fail)
        source.waiting.append([created(disk, "new")])
        pipeline.deliver()
    keep_up(pipeline)
    assert told(agent) == [b"new"]


def test_a_comparison_that_fails_is_no_fault_for_ever(
    pipeline: Pipeline, source: Source, disk: MemoryDisk, agent: Agent,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def fail(*_: object) -> None:
        raise RuntimeError("a test")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryDisk, "names", fail)
        pipeline.gap()
        keep_up(pipeline)
    source.waiting.append([created(disk, "new")])
    pipeline.deliver()
    assert b"new" in told(agent)


def test_one_that_fails_when_an_agent_has_come(
    pipeline: Pipeline, kernel: Kernel, disk: MemoryDisk, agent: Agent,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """It is not tried for ever, and what comes after is delivered."""
    monkeypatch.setattr("farwatch.session.delivery._MOST_WITHOUT_AGENT", 0)
    kernel.releasedir(ROOT, agent.fh)
    kernel.session.answer()
    pipeline._source.waiting.append([created(disk, "dropped")])  # type: ignore[attr-defined]
    pipeline.deliver()
    assert kernel.session.delivery.has_gap
    second = Agent(kernel, 950).register()
    while second.wait() is not None:
        pass

    def fail(*_: object) -> None:
        raise RuntimeError("a test")

    with monkeypatch.context() as patch:
        patch.setattr("farwatch.session.resync.Resync.run", fail)
        keep_up(pipeline)
    assert not kernel.session.delivery.has_gap
