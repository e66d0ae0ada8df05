"""The queue of replays: batches, their room, their order, and starting again."""

from __future__ import annotations

import errno

import pytest

from farwatch.events import Change, Kind
from farwatch.session import delivery
from tests.session.kernel import FIRST_UID, ROOT, Agent, Batch, Kernel, Refused, Step
from tests.session.upkeeping import Keeper

MKNOD, LINK, UNLINK, RENAME, LOOK = 1, 4, 5, 7, 14
BUFFER = 16_383
MOST_STEPS = 512


def create(kernel: Kernel, name: str) -> None:
    inode = kernel.disk.do_file(name)
    kernel.deliver(Change(Kind.CREATE, kernel.disk.place(name), inode.key))


def drain(agent: Agent, done: int = 0) -> list[Batch]:
    batches = []
    batch = agent.wait(done)
    while batch is not None:
        batches.append(batch)
        batch = agent.wait(batch.number)
    return batches


def steps(batches: list[Batch]) -> list[Step]:
    return [step for batch in batches for step in batch.steps]


def test_a_batch_has_room_for_so_many_steps(kernel: Kernel, agent: Agent) -> None:
    names = [f"{number:03d}" + "x" * 200 for number in range(300)]
    for name in names:
        create(kernel, name)
    batches = drain(agent)
    assert [step.name.decode() for step in steps(batches)] == names
    for batch in batches[:-1]:
        size = 20 + sum(40 + len(step.name) + len(step.new_name) for step in batch.steps)
        assert BUFFER - 243 < size <= BUFFER


def test_a_batch_has_no_more_than_so_many_steps(kernel: Kernel, agent: Agent) -> None:
    for number in range(MOST_STEPS * 2):
        create(kernel, f"{number}")
    batches = drain(agent)
    assert all(len(batch.steps) <= MOST_STEPS for batch in batches)
    assert len(steps(batches)) == MOST_STEPS * 2


def test_sequences_go_round(kernel: Kernel, agent: Agent) -> None:
    """After 65535 comes 0: the mark of each step is its own."""
    inode = kernel.disk.do_file("x")
    node = kernel.lookup("x").node
    place = kernel.disk.place("x")
    expected = None
    batch: Batch | None = None
    for _ in range(66_000 // 400):
        kernel.deliver(*[Change(Kind.MODIFY, place, inode.key)] * 400)
        while (batch := agent.wait(batch.number if batch else 0)) is not None:
            if batch.steps:
                assert expected in (None, batch.sequence)
                expected = (batch.sequence + len(batch.steps)) % 65536
    assert expected is not None
    assert expected < 60_000
    create(kernel, "y")
    last = agent.wait()
    assert last is not None
    kernel.mknod("y", 0o100600, uid=last.mark(MKNOD), pid=agent.pid)
    assert kernel.getattr(node).nlink == 1


def test_a_batch_across_the_end_of_the_sequences(kernel: Kernel, agent: Agent) -> None:
    drain(agent)
    kernel.session.delivery._first = 65_534
    for name in "abcd":
        create(kernel, name)
    batch = agent.woken()
    assert batch is not None
    assert batch.sequence == 65_534
    for name, sequence in zip("abcd", (65_534, 65_535, 0, 1), strict=True):
        kernel.mknod(name, 0o100600, uid=FIRST_UID + sequence, pid=agent.pid)


def test_one_batch_at_a_time(kernel: Kernel, agent: Agent) -> None:
    create(kernel, "a")
    first = agent.wait()
    assert first is not None
    create(kernel, "b")
    assert kernel.session.answer() is None
    with pytest.raises(Refused, match="EPERM"):
        kernel.mknod("b", 0o100600, uid=FIRST_UID + first.sequence + 1, pid=agent.pid)


def test_order_is_kept_across_batches_and_failures(kernel: Kernel, agent: Agent) -> None:
    for number in range(30):
        create(kernel, f"{number}")
    batch = agent.wait()
    assert batch is not None
    for number in range(30, 60):
        create(kernel, f"{number}")
    following = agent.wait(batch.number, [(3, errno.EACCES), (29, errno.ENOENT)])
    assert following is not None
    assert [step.name for step in following.steps] == [b"%d" % n for n in range(30, 60)]


def test_what_is_cancelled_before_it_is_handed_over_is_left_out(
    kernel: Kernel, agent: Agent
) -> None:
    for name in "abc":
        create(kernel, name)
    kernel.unlink("b")
    assert [step.name for step in steps(drain(agent))] == [b"a", b"c"]
    assert kernel.session.view.pending == {}


def test_everything_is_over_in_the_end(kernel: Kernel, agent: Agent) -> None:
    for name in "abc":
        create(kernel, name)
    batches = drain(agent)
    assert kernel.session.delivery.is_idle
    assert kernel.session.delivery._armed == {}
    assert kernel.session.view.pending == {}
    assert steps(batches)
    for node in kernel.session.view.nodes.by_id.values():
        assert node.pins == 0


@pytest.mark.parametrize("done", range(4))
def test_an_agent_that_ends_in_the_middle(kernel: Kernel, agent: Agent, done: int) -> None:
    for name in "abc":
        create(kernel, name)
    batch = agent.wait()
    assert batch is not None
    for index, name in enumerate("abc"[:done]):
        kernel.mknod(name, 0o100600, uid=FIRST_UID + batch.sequence + index, pid=agent.pid)
    create(kernel, "d")
    kernel.releasedir(ROOT, agent.fh)
    second = Agent(kernel, pid=950).register()
    names = [step.name for step in steps(drain(second)) if step.op == MKNOD]
    assert names == [name.encode() for name in "abc"[done:] + "d"]
    assert kernel.session.view.pending == {}


def test_links_counted_once_however_often_it_is_tried(kernel: Kernel) -> None:
    disk = kernel.disk
    inode = disk.do_file("x")
    disk.do_link("x", "y")
    node = kernel.lookup("x").node
    kernel.lookup("y")
    place = disk.place("y")
    disk.do_remove("y")
    kernel.deliver(Change(Kind.DELETE, place, inode.key))
    for pid in (910, 920, 930):
        agent = Agent(kernel, pid).register()
        batch = agent.wait()
        assert batch is not None
        assert [step.op for step in batch.steps] == [UNLINK]
        assert kernel.getattr(node).nlink == 2
        kernel.releasedir(ROOT, agent.fh)
    agent = Agent(kernel, 940).register()
    batch = agent.wait()
    assert batch is not None
    mark = {"uid": batch.mark(UNLINK), "pid": agent.pid}
    assert kernel.lookup("y", **mark).attributes.nlink == 2
    kernel.unlink("y", **mark)
    agent.wait(batch.number)
    assert kernel.getattr(node).nlink == 1


def test_what_is_queued_without_an_agent_is_bounded(
    kernel: Kernel, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is dropped is told by what the disk holds, when an agent is there."""
    monkeypatch.setattr(delivery, "_MOST_WITHOUT_AGENT", 20)
    for number in range(50):
        create(kernel, f"a{number}")
    assert len(kernel.session.delivery._queue) <= 20
    keeper = Keeper(kernel.session, kernel.disk)
    keeper.finish()
    batch = agent.wait()
    assert batch is not None
    assert batch.steps == []
    keeper.finish()
    batch = agent.wait(batch.number)
    assert batch is not None
    assert {step.name for step in batch.steps} == {b"a%d" % number for number in range(50)}
    # While there is one, however slow, nothing is dropped.
    for number in range(50):
        create(kernel, f"b{number}")
    batch = agent.wait(batch.number)
    assert batch is not None
    assert len(batch.steps) == 50
    agent.wait(batch.number)
    assert not kernel.session.view.pending


def test_a_link_that_comes_too_late_is_told_as_a_new_name(kernel: Kernel, agent: Agent) -> None:
    """The kernel gives no further link to what has none."""
    disk = kernel.disk
    inode = disk.do_file("x")
    kernel.lookup("x")
    disk.do_link("x", "y")
    kernel.deliver(Change(Kind.CREATE, disk.place("y"), inode.key, linked=True))
    batch = agent.wait()
    assert batch is not None
    assert [step.op for step in batch.steps] == [LINK]
    again = agent.wait(batch.number, [(0, errno.ENOENT)])
    assert again is not None
    assert [(step.op, step.directory, step.name) for step in again.steps] == [(MKNOD, ROOT, b"y")]


def test_links_are_true_again_when_a_removal_fails(kernel: Kernel, agent: Agent) -> None:
    disk = kernel.disk
    inode = disk.do_file("x")
    disk.do_link("x", "y")
    node = kernel.lookup("x").node
    place = disk.place("y")
    disk.do_remove("y")
    kernel.deliver(Change(Kind.DELETE, place, inode.key))
    batch = agent.wait()
    assert batch is not None
    again = agent.wait(batch.number, [(0, errno.EACCES)])
    assert again is not None
    # It is told to the node's own watches at least, under its hidden name.
    assert [(step.op, step.directory) for step in again.steps] == [(UNLINK, 2)]
    assert kernel.getattr(node).nlink == 2
    agent.wait(again.number, [(0, errno.EACCES)])
    assert kernel.getattr(node).nlink == 1


# What somebody in the client holds up ---------------------------------------------------


def test_a_step_that_is_held_up_stays_armed_until_it_is_done(kernel: Kernel, agent: Agent) -> None:
    create(kernel, "x")
    create(kernel, "y")
    batch = agent.wait()
    assert batch is not None
    agent.wait(batch.number, [(1, errno.EINPROGRESS)])
    assert kernel.lookup("x").entry_valid == 1
    assert kernel.lookup("y").entry_valid == 0
    late = batch.sequence + 1
    kernel.mknod("y", 0o100600, uid=FIRST_UID + late, pid=agent.pid)
    agent.wait(0, late=[(late, 0)])
    assert kernel.session.view.pending == {}
    assert kernel.session.delivery._armed == {}
    assert kernel.lookup("y").entry_valid == 1


@pytest.mark.parametrize("sequence", [0, 1, 7, 65_535, 0xFFFFFFFF])
def test_what_was_never_held_up_is_not_ended_as_late(
    kernel: Kernel, agent: Agent, sequence: int
) -> None:
    create(kernel, "x")
    batch = agent.wait()
    assert batch is not None
    agent.wait(0, late=[(sequence, 0), (sequence, errno.EPERM)])
    assert kernel.lookup("x").entry_valid == 0
    kernel.mknod("x", 0o100600, uid=batch.mark(MKNOD), pid=agent.pid)


def test_an_agent_that_ends_while_a_step_is_held_up(kernel: Kernel, agent: Agent) -> None:
    create(kernel, "x")
    batch = agent.wait()
    assert batch is not None
    agent.wait(batch.number, [(0, errno.EINPROGRESS)])
    kernel.releasedir(ROOT, agent.fh)
    drain(Agent(kernel, 950).register())
    assert kernel.session.view.pending == {}
    assert kernel.session.delivery._armed == {}


# A rename that the client's kernel would not do ---------------------------------------


def rename(kernel: Kernel, agent: Agent) -> Batch:
    disk = kernel.disk
    inode = disk.do_mkdir("a")
    disk.do_mkdir("d")
    kernel.lookup("a")
    kernel.lookup("d")
    place = disk.place("a")
    disk.do_rename("a", "d/b")
    kernel.deliver(Change(Kind.RENAME, place, inode.key, True, disk.place("d/b")))
    create(kernel, "after")
    batch = agent.wait()
    assert batch is not None
    return batch


def test_an_exchange_with_where_nobody_looks_goes_in_two_halves(
    kernel: Kernel, agent: Agent
) -> None:
    """If the kernel will not do it: what goes out goes first."""
    disk = kernel.disk
    one = disk.do_file("one")
    disk.do_mkdir("d")
    other = disk.do_file("d/other")
    kernel.lookup("one")
    change = Change(
        Kind.EXCHANGE, disk.place("d/other"), other.key, new_place=disk.place("one"), other=one.key
    )
    kernel.deliver(change)
    batch = agent.wait()
    assert batch is not None
    index = next(i for i, step in enumerate(batch.steps) if step.new_name == b"one")
    failures = [(index, errno.ESTALE)]
    again = agent.wait(batch.number, failures)
    assert again is not None
    renames = [(step.name, step.new_name) for step in again.steps if step.new_name]
    assert [b"one" in names for names in renames] == [True, True], renames
    assert renames[0][0] == renames[1][1] == b"one"


@pytest.mark.parametrize("error", [errno.ELOOP, errno.ESTALE, errno.EXDEV, errno.EBUSY])
def test_a_rename_that_failed_goes_in_two_halves(kernel: Kernel, agent: Agent, error: int) -> None:
    batch = rename(kernel, agent)
    index = [step.op for step in batch.steps].index(RENAME)
    following = agent.wait(batch.number, [(index, error)])
    assert following is not None
    out, into = (step for step in following.steps if step.op == RENAME)
    d = kernel.lookup("d").node
    assert (out.directory, out.name, out.new_directory) == (ROOT, b"a", 2)
    assert (into.directory, into.new_directory, into.new_name) == (2, d, b"b")
    assert out.new_name == into.name


def test_halves_come_before_what_is_queued(kernel: Kernel, agent: Agent) -> None:
    batch = rename(kernel, agent)
    create(kernel, "later")
    index = [step.op for step in batch.steps].index(RENAME)
    following = agent.wait(batch.number, [(index, errno.ELOOP)])
    assert following is not None
    assert [step.op for step in following.steps if step.op != LOOK] == [RENAME, RENAME, MKNOD]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EACCES, errno.EINVAL])
def test_for_other_reasons_it_is_not_tried_again(kernel: Kernel, agent: Agent, error: int) -> None:
    batch = rename(kernel, agent)
    index = [step.op for step in batch.steps].index(RENAME)
    assert steps(drain_after(agent, agent.wait(batch.number, [(index, error)]))) == []
    assert kernel.session.view.pending == {}


def test_halves_that_fail_are_not_halved_for_ever(kernel: Kernel, agent: Agent) -> None:
    batch: Batch | None = rename(kernel, agent)
    for _ in range(20):
        if batch is None:
            break
        renames = [index for index, step in enumerate(batch.steps) if step.op == RENAME]
        batch = agent.wait(batch.number, [(index, errno.ESTALE) for index in renames])
    assert batch is None, "tried without end"
    assert kernel.session.view.pending == {}


def drain_after(agent: Agent, batch: Batch | None) -> list[Batch]:
    return [] if batch is None else [batch, *drain(agent, batch.number)]
