"""What the client may be told while replays are on their way."""

from __future__ import annotations

import errno

import pytest

from farwatch.events import Change, Key, Kind
from farwatch.session import view
from tests.session.kernel import FIRST_UID, ROOT, Agent, Kernel, Refused
from tests.session.memory import MemoryDisk
from tests.session.scenes import EXCHANGE, batch_of, exchanged_and_seen

UNLINK, RMDIR, RENAME_OP, TOUCH, MKNOD_OP, PIN = 5, 6, 7, 8, 1, 12
LOOK, AGAIN = 14, 1


def removed(disk: MemoryDisk, path: str) -> Change:
    """Somebody removes a name; the event of it."""
    place = disk.place(path)
    inode = disk.do_remove(path)
    return Change(Kind.DELETE, place, inode.key, inode.is_dir)


def created(disk: MemoryDisk, path: str) -> Change:
    place = disk.place(path)
    return Change(Kind.CREATE, place, disk.do_file(path).key)


# Names --------------------------------------------------------------------------------


def test_a_pending_name_is_answered_for_this_once(kernel: Kernel) -> None:
    disk = kernel.disk
    disk.do_file("x")
    assert kernel.lookup("x").entry_valid == 1
    kernel.deliver(removed(disk, "x"), created(disk, "x"))
    entry = kernel.lookup("x")
    assert (entry.entry_valid, entry.attr_valid) == (0, 0)
    assert entry.attributes.ino == disk.at("x").ino


def test_readdirplus_tells_a_pending_name_with_node_0(kernel: Kernel) -> None:
    disk = kernel.disk
    disk.do_file("y")
    kernel.deliver(created(disk, "x"))
    told = kernel.list()
    x, y = told[b"x"].entry, told[b"y"].entry
    assert x is not None
    assert y is not None
    assert (x.node, y.node != 0) == (0, True)
    assert told[b"x"].ino == disk.at("x").ino


def test_a_name_is_believed_again_when_the_replay_is_done(kernel: Kernel, agent: Agent) -> None:
    kernel.deliver(created(kernel.disk, "x"))
    batch = agent.wait()
    assert batch is not None
    assert kernel.lookup("x").entry_valid == 0
    kernel.mknod("x", 0o100600, uid=FIRST_UID + batch.sequence, pid=agent.pid)
    assert agent.wait(batch.number) is None
    assert kernel.lookup("x").entry_valid == 1


def test_a_failed_replay_does_not_leave_its_name_pending(kernel: Kernel, agent: Agent) -> None:
    kernel.deliver(created(kernel.disk, "x"))
    batch = agent.wait()
    assert batch is not None
    agent.wait(batch.number, [(0, errno.EACCES)])
    assert kernel.lookup("x").entry_valid == 1


def test_a_lookup_that_finds_nothing_is_not_cached_where_something_was_told(
    kernel: Kernel,
) -> None:
    kernel.disk.do_file("x")
    kernel.lookup("x")
    kernel.disk.do_remove("x")
    with pytest.raises(Refused, match="ENOENT"):
        kernel.lookup("x")
    root = kernel.session.view.nodes.root
    assert kernel.session.view.is_stray(root, b"x")


# Link counts ----------------------------------------------------------------------------


def test_the_count_stays_as_told_until_the_replay(kernel: Kernel, agent: Agent) -> None:
    disk = kernel.disk
    disk.do_file("x")
    disk.do_link("x", "y")
    node = kernel.lookup("x").node
    assert kernel.lookup("y").attributes.nlink == 2
    kernel.deliver(removed(disk, "y"))
    assert disk.at("x").nlink == 1
    assert kernel.getattr(node).nlink == 2
    assert kernel.lookup("x").attributes.nlink == 2
    batch = agent.wait()
    assert batch is not None
    mark = {"uid": FIRST_UID + batch.sequence, "pid": agent.pid}
    assert kernel.lookup("y", **mark).attributes.nlink == 2
    kernel.unlink("y", **mark)
    agent.wait(batch.number)
    assert kernel.getattr(node).nlink == 1


def test_the_old_count_is_told_until_the_kernel_has_counted_itself(
    kernel: Kernel, agent: Agent
) -> None:
    """One less would be counted down again, and to 0, with DELETE_SELF on a living file."""
    disk = kernel.disk
    disk.do_file("x")
    disk.do_link("x", "y")
    node = kernel.lookup("x").node
    kernel.deliver(removed(disk, "y"))
    batch = agent.wait()
    assert batch is not None
    mark = {"uid": FIRST_UID + batch.sequence, "pid": agent.pid}
    kernel.lookup("y", **mark)
    kernel.unlink("y", **mark)
    # The agent's thread has not asked anything since: it may not have read the answer.
    entry = kernel.lookup("x")
    assert (entry.attributes.nlink, entry.attr_valid) == (2, 0)
    assert kernel.getattr(node).nlink == 2
    agent.wait(batch.number)
    entry = kernel.lookup("x")
    assert (entry.attributes.nlink, entry.attr_valid) == (1, 1)


def test_an_agent_that_is_gone_has_counted(kernel: Kernel, agent: Agent) -> None:
    disk = kernel.disk
    disk.do_file("x")
    disk.do_link("x", "y")
    node = kernel.lookup("x").node
    kernel.deliver(removed(disk, "y"))
    batch = agent.wait()
    assert batch is not None
    mark = {"uid": FIRST_UID + batch.sequence, "pid": agent.pid}
    kernel.lookup("y", **mark)
    kernel.unlink("y", **mark)
    kernel.releasedir(ROOT, agent.fh)
    assert kernel.getattr(node).nlink == 1


def test_an_inode_that_is_gone_keeps_its_last_link_until_the_replay(
    kernel: Kernel, agent: Agent
) -> None:
    disk = kernel.disk
    inode = disk.do_file("x", b"12")
    node = kernel.lookup("x").node
    change = removed(disk, "x")
    disk.do_close(inode)
    kernel.deliver(change, Change(Kind.DEATH, None, change.node))
    told = kernel.getattr(node)
    assert (told.nlink, told.size) == (1, 2)
    batch = agent.wait()
    assert batch is not None
    assert [step.op for step in batch.steps] == [UNLINK]
    kernel.unlink("x", uid=FIRST_UID + batch.sequence, pid=agent.pid)
    # A dead node that is still held answers GETATTR, not ESTALE.
    assert kernel.getattr(node).nlink == 0


def test_the_disk_s_count_is_never_told_as_0_early(kernel: Kernel) -> None:
    kernel.disk.do_file("x")
    node = kernel.lookup("x").node
    kernel.disk.do_remove("x")  # and the event of it has not been read yet
    assert kernel.getattr(node).nlink == 1


def test_a_removal_that_has_not_been_read_takes_no_link(kernel: Kernel, agent: Agent) -> None:
    """Or the removal that is being told would be taken for the last one."""
    disk = kernel.disk
    disk.do_file("x")
    disk.do_link("x", "y")
    node = kernel.lookup("x").node
    first = removed(disk, "x")
    kernel.deliver(first)
    second = removed(disk, "y")
    assert kernel.getattr(node).nlink == 2
    batch = agent.wait()
    assert batch is not None
    mark = {"uid": FIRST_UID + batch.sequence, "pid": agent.pid}
    assert kernel.lookup("x", **mark).attributes.nlink == 2
    kernel.unlink("x", **mark)
    agent.wait(batch.number)
    assert kernel.getattr(node).nlink == 1
    kernel.deliver(second)
    assert kernel.getattr(node).nlink == 1


def test_a_pinned_inode_keeps_a_link_until_its_name_is_gone(kernel: Kernel, agent: Agent) -> None:
    """The kernel may have put another dentry in the place of the pinned one."""
    disk = kernel.disk
    disk.do_file("x")
    node = kernel.lookup("x").node
    kernel.deliver(removed(disk, "x"))  # and somebody holds it open
    batch = agent.wait()
    assert batch is not None
    assert [step.op for step in batch.steps] == [PIN, UNLINK]
    mark = {"uid": FIRST_UID + batch.sequence + 1, "pid": agent.pid}
    assert kernel.lookup("x", **mark).attributes.nlink == 2
    kernel.unlink("x", **mark)
    # Whoever asks now must not be told 0: an end of any dentry would be the inode's.
    assert kernel.getattr(node).nlink != 0
    assert kernel.getattr(node, **mark).nlink == 0
    assert kernel.getattr(node).nlink == 0


def test_nor_does_a_look_before_its_name_is_gone_take_that_link(
    kernel: Kernel, agent: Agent
) -> None:
    disk = kernel.disk
    disk.do_file("x")
    node = kernel.lookup("x").node
    kernel.deliver(removed(disk, "x"))  # and somebody holds it open
    kernel.session.is_behind = lambda: False
    batch = agent.wait()
    assert batch is not None
    mark = {"uid": FIRST_UID + batch.sequence + 1, "pid": agent.pid}
    assert kernel.lookup("x", **mark).attributes.nlink == 2
    assert kernel.getattr(node).nlink == 2
    kernel.unlink("x", **mark)
    assert kernel.getattr(node).nlink != 0


def test_a_link_that_went_elsewhere_is_not_told_for_ever(kernel: Kernel) -> None:
    """Outside of the export: no replay takes it."""
    disk = kernel.disk
    disk.do_file("x")
    disk.do_link("x", "y")
    node = kernel.lookup("x").node
    disk.do_remove("y")
    assert kernel.getattr(node).nlink == 2
    kernel.session.is_behind = lambda: False
    assert kernel.getattr(node).nlink == 1


def step_of(agent: Agent) -> dict[str, int]:
    """What the agent's requests for its next step are marked by."""
    batch = agent.wait()
    assert batch is not None
    return {"uid": FIRST_UID + batch.sequence, "pid": agent.pid}


def furnished(kernel: Kernel) -> int:
    """A directory d with a file x, which the kernel knows: its node."""
    kernel.disk.do_mkdir("d")
    kernel.disk.do_file("d/x")
    directory = kernel.lookup("d").node
    kernel.lookup("x", directory)
    return directory


def test_a_directory_that_is_gone_is_reached_through_the_hidden_one(
    kernel: Kernel, agent: Agent
) -> None:
    """The kernel cannot find its place in the tree any more, in the middle of a step."""
    directory = furnished(kernel)
    file = removed(kernel.disk, "d/x")
    kernel.deliver(file, removed(kernel.disk, "d"))
    mark = step_of(agent)
    assert kernel.lookup(b"n%d" % directory, 2, **mark).node == directory
    assert kernel.lookup("x", directory, **mark).attributes.nlink == 1


def test_but_not_one_that_the_client_has_removed(kernel: Kernel, agent: Agent) -> None:
    """Nothing can be replayed in it, and its kernel would keep it alive for the name there."""
    directory = furnished(kernel)
    kernel.deliver(removed(kernel.disk, "d/x"))
    kernel.rmdir("d")
    mark = step_of(agent)
    with pytest.raises(Refused, match="ENOENT"):
        kernel.lookup(b"n%d" % directory, 2, **mark)


def test_what_was_looked_at_before_a_move_is_not_on_the_way_after_it(
    kernel: Kernel, agent: Agent
) -> None:
    """A step that looks is not known to be done until its batch is."""
    a, b = exchanged_and_seen(kernel)
    batch = batch_of(agent)
    *looks, exchange, make = range(batch.sequence, batch.sequence + len(batch.steps))
    assert looks
    mark = {"uid": FIRST_UID + exchange, "pid": agent.pid}
    assert kernel.lookup("a", **mark).node == a
    assert kernel.lookup("b", **mark).node == b
    kernel.rename("a", "b", flags=EXCHANGE, **mark)
    # The way to the directory, where its name was evicted (agent/paths.py).
    mark = {"uid": FIRST_UID + make, "pid": agent.pid}
    assert kernel.lookup("b", **mark).node == a
    assert kernel.mknod("x", directory=a, **mark)


def test_a_further_link_is_not_counted_before_its_replay(kernel: Kernel, agent: Agent) -> None:
    disk = kernel.disk
    disk.do_file("x")
    node = kernel.lookup("x").node
    inode = disk.do_link("x", "y")
    kernel.deliver(Change(Kind.CREATE, disk.place("y"), inode.key, linked=True))
    assert kernel.getattr(node).nlink == 1
    batch = agent.wait()
    assert batch is not None
    mark = {"uid": FIRST_UID + batch.sequence, "pid": agent.pid}
    hidden = batch.steps[0].name
    assert kernel.lookup(hidden, 2, **mark).attributes.nlink == 1
    assert kernel.link(node, "y", **mark).attributes.nlink == 2
    assert kernel.getattr(node).nlink == 2


def test_the_client_s_own_unlink_counts(kernel: Kernel) -> None:
    kernel.disk.do_file("x")
    kernel.disk.do_link("x", "y")
    node = kernel.lookup("x").node
    kernel.lookup("y")
    kernel.unlink("x")
    assert kernel.getattr(node).nlink == 1
    kernel.unlink("y")
    assert kernel.getattr(node).nlink == 0


# Strays -------------------------------------------------------------------------------


def test_what_differs_from_what_was_told_is_answered_for_this_once(kernel: Kernel) -> None:
    disk = kernel.disk
    disk.do_file("x")
    kernel.lookup("x")
    disk.do_remove("x")
    disk.do_file("x")
    assert kernel.lookup("x").entry_valid == 0
    listed = kernel.list()[b"x"].entry
    assert listed is not None
    assert listed.node == 0


def test_a_stray_is_taken_for_true_when_no_event_comes(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = kernel.disk
    disk.do_file("x")
    kernel.lookup("x")
    disk.do_remove("x")
    disk.do_file("x")
    assert kernel.lookup("x").entry_valid == 0
    monkeypatch.setattr(view, "STRAY_SECONDS", -1.0)
    assert kernel.lookup("x").entry_valid == 1
    assert kernel.lookup("x").entry_valid == 1


def test_a_known_node_under_a_new_name_waits_for_its_event(kernel: Kernel) -> None:
    disk = kernel.disk
    disk.do_file("x")
    kernel.lookup("x")
    disk.do_rename("x", "y")
    assert kernel.lookup("y").entry_valid == 0
    listed = kernel.list()[b"y"].entry
    assert listed is not None
    assert listed.node == 0
    # And the rename is still told from x.
    kernel.deliver(
        Change(Kind.RENAME, disk.place("x"), disk.at("y").key, new_place=disk.place("y"))
    )
    batch = Agent(kernel).register().wait()
    assert batch is not None
    assert [(s.op, s.name, s.new_name) for s in batch.steps] == [(RENAME_OP, b"x", b"y")]


def test_a_stray_is_not_trusted_by_an_unlink(kernel: Kernel, agent: Agent) -> None:
    """The replayed unlink must not hit what has been looked up since."""
    disk = kernel.disk
    disk.do_file("x")
    kernel.lookup("x")
    change = removed(disk, "x")
    disk.do_file("x", b"new")
    kernel.lookup("x")
    kernel.deliver(change)
    batch = agent.wait()
    assert batch is not None
    mark = {"uid": batch.mark(UNLINK), "pid": agent.pid}
    for _ in range(2):
        with pytest.raises(Refused, match="ESTALE"):
            kernel.unlink("x", **mark)
    assert kernel.lookup("x", **mark).attributes.size == 0
    kernel.unlink("x", **mark)
    assert disk.at("x").content() == b"new"


def test_names_looked_up_early_are_asked_for_again_before_an_exchange(
    kernel: Kernel, agent: Agent
) -> None:
    """The kernel would take both for names of one inode, and do nothing."""
    disk = kernel.disk
    a, b = disk.do_file("a"), disk.do_file("b")
    disk.do_rename("a", "b", EXCHANGE)
    assert kernel.lookup("a").entry_valid == 1
    kernel.deliver(
        Change(Kind.EXCHANGE, disk.place("a"), a.key, new_place=disk.place("b"), other=b.key)
    )
    batch = agent.wait()
    assert batch is not None
    told = [(step.op, step.name, step.argument) for step in batch.steps]
    assert told == [(LOOK, b"a", AGAIN), (LOOK, b"b", AGAIN), (RENAME_OP, b"a", EXCHANGE)]
    first = {"uid": FIRST_UID + batch.sequence, "pid": agent.pid}
    assert kernel.lookup("a", **first).attributes.ino == a.ino


def test_of_an_inode_that_is_gone_no_link_is_taken_before_it_is_read(
    kernel: Kernel, agent: Agent
) -> None:
    disk = kernel.disk
    inode = disk.do_file("x")
    disk.do_link("x", "y")
    kernel.lookup("x")
    kernel.lookup("y")
    change = removed(disk, "y")
    disk.do_remove("x")
    disk.do_close(inode)
    kernel.deliver(change)
    batch = agent.wait()
    assert batch is not None
    mark = {"uid": batch.mark(UNLINK), "pid": agent.pid}
    assert kernel.lookup("y", **mark).attributes.nlink == 2
    kernel.unlink("y", **mark)
    assert kernel.getattr(inode_of(kernel, inode.key)).nlink >= 1


def inode_of(kernel: Kernel, key: Key) -> int:
    return kernel.session.view.nodes.by_key[key].id


# The client's own changes ---------------------------------------------------------------


def step_names(agent: Agent) -> list[tuple[int, int, bytes]]:
    batch = agent.wait()
    return [] if batch is None else [(s.op, s.directory, s.name) for s in batch.steps]


def hidden_name(kernel: Kernel, key: Key) -> bytes:
    return b"n%d" % kernel.session.view.nodes.by_key[key].id


def test_creating_anew_cancels_the_delete_but_not_the_death(kernel: Kernel, agent: Agent) -> None:
    """What the client changes itself has the last word."""
    disk = kernel.disk
    disk.do_file("x")
    kernel.lookup("x")
    change = removed(disk, "x")
    kernel.deliver(change)
    kernel.mknod("x")
    assert change.node is not None
    assert step_names(agent)[-1] == (UNLINK, 2, hidden_name(kernel, change.node))


def test_a_cancelled_replay_is_refused_even_while_the_agent_is_on_it(
    kernel: Kernel, agent: Agent
) -> None:
    disk = kernel.disk
    disk.do_file("x")
    kernel.lookup("x")
    kernel.deliver(removed(disk, "x"))
    batch = agent.wait()
    assert batch is not None
    kernel.mknod("x")
    before = disk.snapshot()
    mark = {"uid": batch.mark(UNLINK), "pid": agent.pid}
    for act in (lambda: kernel.unlink("x", **mark), lambda: kernel.lookup("x", **mark)):
        with pytest.raises(Refused, match="ECANCELED"):
            act()
    assert disk.snapshot() == before
    assert kernel.lookup("x").entry_valid == 0  # its replay is not over yet
    again = agent.wait(batch.number, [(len(batch.steps) - 1, errno.ECANCELED)])
    assert again is not None
    assert [(s.op, s.directory) for s in again.steps] == [(UNLINK, 2)]


def test_removing_what_was_created_cancels_the_create(kernel: Kernel, agent: Agent) -> None:
    kernel.deliver(created(kernel.disk, "x"))
    kernel.unlink("x")
    assert step_names(agent) == []


@pytest.mark.parametrize("touched", ["old", "new"])
def test_a_rename_s_other_half_is_still_told(kernel: Kernel, agent: Agent, touched: str) -> None:
    disk = kernel.disk
    inode = disk.do_file("old")
    kernel.lookup("old")
    place = disk.place("old")
    disk.do_rename("old", "new")
    kernel.deliver(Change(Kind.RENAME, place, inode.key, new_place=disk.place("new")))
    if touched == "old":
        kernel.mknod("old")
    else:
        kernel.unlink("new")
    batch = agent.wait()
    assert batch is not None
    (step,) = [step for step in batch.steps if step.op == RENAME_OP]
    if touched == "old":
        assert (step.directory, step.new_directory, step.new_name) == (2, ROOT, b"new")
    else:
        assert (step.directory, step.name, step.new_directory) == (ROOT, b"old", 2)


def test_a_touch_is_told_to_the_node_when_its_name_is_gone(kernel: Kernel, agent: Agent) -> None:
    disk = kernel.disk
    inode = disk.do_file("x")
    kernel.lookup("x")
    kernel.deliver(Change(Kind.MODIFY, disk.place("x"), inode.key))
    kernel.rename("x", "y")
    assert step_names(agent) == [(TOUCH, 2, hidden_name(kernel, inode.key))]


def test_what_was_read_before_the_client_s_change_is_outdated(kernel: Kernel, agent: Agent) -> None:
    """The client's own record of the name may not have been read yet."""
    disk = kernel.disk
    disk.do_file("x")
    kernel.lookup("x")
    session = kernel.session
    session.view.drains.begin()
    change = removed(disk, "x")
    kernel.mknod("x")
    session.deliver([change], frozenset())
    with session.view.lock:
        session.view.drains.end()
    assert all(op == UNLINK and where == 2 for op, where, _ in step_names(agent))


def test_what_the_batch_has_seen_the_client_change_is_in_order(
    kernel: Kernel, agent: Agent
) -> None:
    disk = kernel.disk
    session = kernel.session
    session.view.drains.begin()
    kernel.mknod("x")
    place = disk.place("x")
    change = removed(disk, "x")
    session.deliver([change], frozenset([place]))
    assert (UNLINK, ROOT, b"x") in step_names(agent)
