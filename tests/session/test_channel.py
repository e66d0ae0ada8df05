"""The control channel through the bytes: HELLO, WAIT, WATCH, and who may say them."""

from __future__ import annotations

import struct

import pytest

from farwatch.events import Change, Kind, Mask
from tests.session.kernel import (
    FIRST_UID,
    GENERATION,
    HELLO,
    HIDDEN,
    INTERRUPT,
    IOCTL,
    IOCTL_DIR,
    ROOT,
    WAIT,
    WATCH,
    Agent,
    Kernel,
    Refused,
)

HELLO_BODY = struct.pack("<II", 1, 0)
OPEN, ACCESS, CLOSE_NOWRITE = Mask.OPEN, Mask.ACCESS, Mask.CLOSE_NOWRITE
SCAN, RELEASE = 1, 2
FIRST, LAST, EVERYTHING, BY_PATH = 1, 2, 4, 8


def create(kernel: Kernel, name: str = "x") -> None:
    inode = kernel.disk.do_file(name)
    kernel.deliver(Change(Kind.CREATE, kernel.disk.place(name), inode.key))


def quiet(agent: Agent) -> None:
    """Parks, with the scan that an active client asks for out of the way."""
    batch = agent.wait()
    while batch is not None:
        batch = agent.wait(batch.number)


# HELLO ----------------------------------------------------------------------------------


def test_hello(kernel: Kernel) -> None:
    assert Agent(kernel).hello() == (1, FIRST_UID, GENERATION, HIDDEN)


def test_an_agent_may_ask_to_be_registered_only_if_no_other_is(kernel: Kernel) -> None:
    if_none = struct.pack("<II", 1, 1)
    first, second = Agent(kernel), Agent(kernel, pid=950)
    assert first.ioctl(HELLO, if_none) is not None
    with pytest.raises(Refused, match="EBUSY"):
        second.ioctl(HELLO, if_none)
    assert not kernel.session.channel.is_agent(second.pid)
    quiet(first)
    # Another thread of the one that is registered is no other.
    assert first.ioctl(HELLO, if_none, pid=first.pid + 1) is not None
    kernel.session.channel.closed(first.fh)
    assert second.ioctl(HELLO, if_none) is not None
    # Whoever does not ask for that takes over.
    first.hello()
    with pytest.raises(Refused, match="EPERM"):
        second.wait()


@pytest.mark.parametrize("version", [0, 2, 0xFFFFFFFF])
def test_another_version_is_refused(kernel: Kernel, version: int) -> None:
    with pytest.raises(Refused, match="EPROTO"):
        Agent(kernel).ioctl(HELLO, struct.pack("<II", version, 0))


@pytest.mark.parametrize("uid", [1, 1000, 0xFFFFFFFF, FIRST_UID])
def test_only_root_may_say_hello(kernel: Kernel, uid: int) -> None:
    agent = Agent(kernel)
    with pytest.raises(Refused, match="EPERM"):
        agent.hello(uid=uid)
    assert not kernel.session.channel.is_agent(agent.pid)


def test_a_thread_of_another_pid_namespace_may_not(kernel: Kernel) -> None:
    """Its id is 0, which would stand for anybody."""
    with pytest.raises(Refused, match="EPERM"):
        Agent(kernel).hello(pid=0)
    assert not kernel.session.channel.is_agent(0)


@pytest.mark.parametrize("command", [HELLO, WAIT, WATCH])
def test_only_on_the_root_directory(kernel: Kernel, command: int) -> None:
    agent = Agent(kernel).register()
    node = kernel.mkdir("d").node
    for where in ({"node": node}, {"flags": 0}, {"flags": 1}):
        with pytest.raises(Refused, match="ENOTTY"):
            agent.ioctl(command, bytes(12), **where)


@pytest.mark.parametrize("command", [0x5401, 0, 0xFFFF7700, 0xFFFF7705, 0xC0107701])
def test_other_ioctls_are_no_terminal(kernel: Kernel, command: int) -> None:
    # Python's open() asks TCGETS of everything.
    with pytest.raises(Refused, match="ENOTTY"):
        Agent(kernel).ioctl(command, bytes(60))


# WAIT -----------------------------------------------------------------------------------


def test_wait_is_parked_and_answered(kernel: Kernel, agent: Agent) -> None:
    quiet(agent)
    assert kernel.session.answer() is None
    create(kernel)
    batch = agent.woken()
    assert batch is not None
    assert [step.name for step in batch.steps] == [b"x"]
    assert kernel.session.answer() is None


def test_an_agent_is_ready_when_it_has_asked_and_scanned(kernel: Kernel) -> None:
    """Also if it never waits, because there is always something to do."""
    agent = Agent(kernel)
    agent.hello()
    agent.hello(pid=agent.pid + 1)
    create(kernel)
    assert agent.wait() is not None
    assert not kernel.session.channel.is_ready
    agent.watch()
    assert kernel.session.channel.is_ready


def test_wait_is_answered_at_once_if_there_is_something(kernel: Kernel, agent: Agent) -> None:
    create(kernel)
    batch = agent.wait()
    assert batch is not None
    assert batch.steps
    assert agent.parked is None


def test_an_active_client_is_scanned(kernel: Kernel, agent: Agent) -> None:
    batch = agent.wait()
    assert batch is not None
    assert (batch.flags, batch.steps) == (SCAN, [])


def test_batches_are_numbered_and_acknowledged_once(kernel: Kernel, agent: Agent) -> None:
    create(kernel, "x")
    first = agent.wait()
    assert first is not None
    create(kernel, "y")
    second = agent.wait(first.number)
    assert second is not None
    assert second.number == first.number + 1
    assert second.sequence == first.sequence + len(first.steps)
    assert [step.name for step in second.steps] == [b"y"]


def test_the_acknowledgment_of_another_batch_ends_nothing(kernel: Kernel, agent: Agent) -> None:
    create(kernel)
    batch = agent.wait()
    assert batch is not None
    pending = dict(kernel.session.view.pending)
    for number in (0, batch.number - 1, batch.number + 1, (1 << 64) - 1):
        agent.wait(number)
    assert kernel.session.view.pending == pending
    agent.wait(batch.number)
    assert kernel.session.view.pending == {}


def test_failures_out_of_range_are_nothing(kernel: Kernel, agent: Agent) -> None:
    create(kernel)
    batch = agent.wait()
    assert batch is not None
    agent.wait(batch.number, [(99, 5), (0xFFFFFFFF, 0xFFFFFFFF), (0, 0)])
    assert kernel.session.view.pending == {}


def test_wait_is_for_registered_threads(kernel: Kernel, agent: Agent) -> None:
    with pytest.raises(Refused, match="EPERM"):
        agent.ioctl(WAIT, struct.pack("<QII", 0, 0, 0), pid=4711)
    with pytest.raises(Refused, match="EPERM"):
        agent.ioctl(WAIT, struct.pack("<QII", 0, 0, 0), fh=agent.fh + 1)


@pytest.mark.parametrize(
    ("command", "length"),
    [(WAIT, length) for length in range(16)] + [(WATCH, length) for length in range(12)],
)
def test_a_cut_off_message(kernel: Kernel, agent: Agent, command: int, length: int) -> None:
    with pytest.raises(Refused, match="EINVAL"):
        agent.ioctl(command, bytes(length))


def test_interrupt_answers_eintr(kernel: Kernel, agent: Agent) -> None:
    quiet(agent)
    assert agent.parked is not None
    assert kernel.try_ask(INTERRUPT, 0, struct.pack("<Q", agent.parked)) is None
    with pytest.raises(Refused, match="EINTR"):
        agent.woken()
    assert kernel.session.answer() is None
    # Nothing is lost: it waits again.
    create(kernel)
    assert agent.wait() is not None


def test_interrupts_of_other_requests_are_nothing(kernel: Kernel, agent: Agent) -> None:
    quiet(agent)
    assert agent.parked is not None
    for unique in (0, agent.parked + 2, agent.parked | 1, (1 << 64) - 1):
        assert kernel.try_ask(INTERRUPT, 0, struct.pack("<Q", unique)) is None
    assert kernel.session.answer() is None
    create(kernel)
    assert agent.woken() is not None


def test_what_comes_between_interrupt_and_answer_is_not_lost(kernel: Kernel, agent: Agent) -> None:
    quiet(agent)
    kernel.try_ask(INTERRUPT, 0, struct.pack("<Q", agent.parked))
    create(kernel)
    with pytest.raises(Refused, match="EINTR"):
        agent.woken()
    batch = agent.wait()
    assert batch is not None
    assert [step.name for step in batch.steps] == [b"x"]


# The agent comes and goes -------------------------------------------------------------


def test_closing_the_descriptor_unregisters(kernel: Kernel, agent: Agent) -> None:
    quiet(agent)
    kernel.releasedir(ROOT, agent.fh)
    assert not kernel.session.channel.is_agent(agent.pid)
    assert not kernel.session.channel.is_ready
    with pytest.raises(Refused, match="EINTR"):
        agent.woken()  # whoever still waits there is told to look again
    create(kernel)
    assert kernel.session.answer() is None


def test_an_agent_that_is_replaced_while_it_waits_is_woken(kernel: Kernel, agent: Agent) -> None:
    quiet(agent)
    second = Agent(kernel, pid=950)
    second.hello()
    with pytest.raises(Refused, match="EINTR"):
        agent.woken()
    with pytest.raises(Refused, match="EPERM"):
        agent.wait()
    quiet(second)
    create(kernel)
    assert second.woken() is not None


def test_closing_another_descriptor_does_not(kernel: Kernel, agent: Agent) -> None:
    fh = kernel.opendir().fh
    kernel.releasedir(ROOT, fh)
    assert kernel.session.channel.is_agent(agent.pid)


def test_a_second_agent_takes_over_with_what_is_undone(kernel: Kernel, agent: Agent) -> None:
    for name in ("a", "b", "c"):
        create(kernel, name)
    batch = agent.wait()
    assert batch is not None
    kernel.mknod("a", 0o100600, uid=FIRST_UID + batch.sequence, pid=agent.pid)
    second = Agent(kernel, pid=950).register()
    again = second.wait()
    assert again is not None
    assert [step.name for step in again.steps] == [b"b", b"c"]
    # The old one is no agent any more, whatever it was on.
    before = kernel.disk.snapshot()
    for sequence in range(batch.sequence, again.sequence + 3):
        for name in ("a", "b", "c"):
            with pytest.raises(Refused, match="EPERM"):
                kernel.mknod(name, 0o100600, uid=FIRST_UID + sequence, pid=agent.pid)
    assert kernel.disk.snapshot() == before
    with pytest.raises(Refused, match="EPERM"):
        agent.wait(batch.number)
    kernel.mknod("b", 0o100600, uid=FIRST_UID + again.sequence, pid=second.pid)


def test_what_happens_while_nobody_is_there_is_kept(kernel: Kernel, agent: Agent) -> None:
    kernel.releasedir(ROOT, agent.fh)
    for number in range(1000):
        create(kernel, f"f{number}")
    second = Agent(kernel, pid=950).register()
    names: list[bytes] = []
    batch = second.wait()
    while batch is not None:
        names += [step.name for step in batch.steps]
        batch = second.wait(batch.number)
    assert names == [b"f%d" % number for number in range(1000)]


def test_the_same_thread_may_say_hello_again(kernel: Kernel, agent: Agent) -> None:
    create(kernel)
    batch = agent.wait()
    assert batch is not None
    agent.hello()
    kernel.mknod("x", 0o100600, uid=FIRST_UID + batch.sequence, pid=agent.pid)


# WATCH ----------------------------------------------------------------------------------


def test_what_is_watched_for_reading_is_asked_of_the_source(kernel: Kernel, agent: Agent) -> None:
    assert kernel.session.reading == 0
    agent.watch([(ROOT, 0, OPEN | Mask.CREATE), (16, GENERATION, ACCESS)])
    # What is opened for an OPEN is closed by the close, which nobody need watch for.
    assert kernel.session.reading == OPEN | ACCESS | CLOSE_NOWRITE
    agent.watch([(ROOT, 0, Mask.CREATE)])
    assert kernel.session.reading == 0


def test_a_scan_in_several_messages_counts_when_it_is_complete(
    kernel: Kernel, agent: Agent
) -> None:
    agent.watch([(ROOT, 0, OPEN)], FIRST)
    agent.watch([(16, 0, ACCESS)], 0)
    assert kernel.session.reading == 0
    agent.watch([(ROOT, 0, CLOSE_NOWRITE)], LAST)
    assert kernel.session.reading == OPEN | ACCESS | CLOSE_NOWRITE
    assert kernel.session.interest.watches(Mask.OPEN, kernel.session.view.nodes.root)


def test_a_new_scan_forgets_a_half_one(kernel: Kernel, agent: Agent) -> None:
    agent.watch([(ROOT, 0, OPEN)], FIRST)
    agent.watch([(ROOT, 0, ACCESS)], FIRST | LAST)
    assert kernel.session.reading == ACCESS


def test_when_nobody_wants_opens_any_more_the_agent_closes_them(
    kernel: Kernel, agent: Agent
) -> None:
    agent.watch([(ROOT, 0, OPEN)])
    quiet(agent)
    agent.watch([])
    batch = agent.woken()
    assert batch is not None
    assert batch.flags & RELEASE


def test_a_group_that_wants_descriptors(kernel: Kernel, agent: Agent) -> None:
    agent.watch([(0, 0, Mask.MODIFY)], FIRST | LAST | EVERYTHING | BY_PATH)
    assert kernel.session.interest.everything
    assert kernel.session.reading == OPEN | CLOSE_NOWRITE


def test_when_the_agent_is_gone_nothing_is_known(kernel: Kernel, agent: Agent) -> None:
    agent.watch([(ROOT, 0, OPEN)], FIRST | LAST | EVERYTHING)
    kernel.releasedir(ROOT, agent.fh)
    assert not kernel.session.interest.everything
    assert kernel.session.interest.reading == 0


def test_when_the_agent_is_gone_reading_is_not_asked_for(kernel: Kernel, agent: Agent) -> None:
    agent.watch([(ROOT, 0, OPEN)])
    kernel.releasedir(ROOT, agent.fh)
    assert kernel.session.reading == 0


def test_watch_wants_a_hello(kernel: Kernel) -> None:
    agent = Agent(kernel)
    with pytest.raises(Refused, match="EPERM"):
        agent.watch()


def test_a_huge_number_of_watches_is_malformed(kernel: Kernel, agent: Agent) -> None:
    with pytest.raises(Refused, match="EINVAL"):
        agent.ioctl(WATCH, struct.pack("<III", 3, 0, 0xFFFFFFFF) + bytes(1000))


def test_a_message_longer_than_it_says(kernel: Kernel, agent: Agent) -> None:
    body = struct.pack("<QIIQII", agent.fh, IOCTL_DIR, HELLO, 0, 4, 100) + HELLO_BODY
    with pytest.raises(Refused, match="EINVAL"):
        kernel.ask(IOCTL, ROOT, body)
