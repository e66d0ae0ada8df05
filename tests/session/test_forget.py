"""Look-ups that are told and forgotten: in the end nothing but the root is left."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from farwatch.events import Change, Kind
from tests.session.kernel import ROOT, Agent, Kernel, Refused
from tests.session.memory import MemoryDisk

NAMES = st.sampled_from(["a", "b", "c"])
ACTIONS = st.one_of(
    st.tuples(st.just("lookup"), NAMES),
    st.tuples(st.just("create"), NAMES),
    st.tuples(st.just("mkdir"), NAMES),
    st.tuples(st.just("link"), NAMES, NAMES),
    st.tuples(st.just("rename"), NAMES, NAMES),
    st.tuples(st.just("unlink"), NAMES),
    st.tuples(st.just("rmdir"), NAMES),
    st.tuples(st.just("list")),
    st.tuples(st.just("tmpfile")),
    st.tuples(st.just("remote remove"), NAMES),
    st.tuples(st.just("remote create"), NAMES),
    st.tuples(st.just("replay")),
    st.tuples(st.just("forget some"), st.integers(0, 5)),
)


class History:
    """What a client and somebody else do, and the events of the latter."""

    def __init__(self, disk: MemoryDisk) -> None:
        self.kernel = Kernel(disk)
        self.kernel.init()
        self.agent = Agent(self.kernel).register()
        self.batch = 0

    def act(self, what: str, *words: str | int) -> None:
        kernel = self.kernel
        name, other = (*(str(word) for word in words), "", "")[:2]
        match what:
            case "lookup":
                kernel.lookup(name)
            case "create":
                entry, opened = kernel.create(name)
                kernel.release(entry.node, opened.fh)
            case "mkdir":
                kernel.mkdir(name)
            case "link":
                kernel.link(kernel.lookup(name).node, other)
            case "rename":
                kernel.rename(name, other)
            case "unlink":
                kernel.unlink(name)
            case "rmdir":
                kernel.rmdir(name)
            case "list":
                kernel.list()
            case "tmpfile":
                entry, opened = kernel.tmpfile()
                kernel.release(entry.node, opened.fh)
            case "forget some":
                for node in [node for node, n in kernel.given.items() if n][: int(words[0])]:
                    kernel.forget(node, 1)
                    kernel.given[node] -= 1
            case _:
                self.remote(what, name)

    def remote(self, what: str, name: str) -> None:
        kernel, disk = self.kernel, self.kernel.disk
        held = disk.root.children.get(name.encode())
        if what == "remote create" and held is None:
            inode = disk.do_file(name)
            kernel.deliver(Change(Kind.CREATE, disk.place(name), inode.key))
        elif what == "remote remove" and held is not None and not held.children:
            kernel.deliver(Change(Kind.DELETE, disk.place(name), held.key, held.is_dir))
            disk.do_remove(name)
        elif what == "replay":
            self.replay()

    def replay(self) -> None:
        """The agent acknowledges whatever there is, and fails at half of it."""
        batch = self.agent.wait(self.batch) if self.agent.parked is None else self.agent.woken()
        while batch is not None:
            self.batch = batch.number
            batch = self.agent.wait(batch.number, [(i, 2) for i in range(0, len(batch.steps), 2)])


@settings(max_examples=150)
@given(st.lists(ACTIONS, max_size=25))
def test_nothing_is_left_when_everything_is_forgotten(actions: list[tuple[str, ...]]) -> None:
    with MemoryDisk() as disk:
        history = History(disk)
        for what, *words in actions:
            try:
                history.act(what, *words)
            except Refused:
                pass
        history.replay()
        kernel = history.kernel
        nodes = kernel.session.view.nodes
        for node in nodes.by_id.values():
            if node.id != ROOT:
                assert node.lookups == kernel.given.get(node.id, 0)
        kernel.releasedir(ROOT, history.agent.fh)
        for pin, node in kernel.session._planner._lifetimes._pins.values():
            assert pin
            node.pins -= 1  # a pin is for as long as the remote side holds the inode
            nodes._release(node)
        kernel.forget_all()
        assert set(nodes.by_id) == {ROOT}
        assert set(nodes.by_key) == {disk.root_key}
        assert nodes.root.children == {}
        assert kernel.session.view.pending == {}
        kernel.session.close()


def test_batch_forget_counts_as_so_many_forgets(kernel: Kernel) -> None:
    kernel.disk.do_file("a")
    kernel.disk.do_file("b")
    a = kernel.lookup("a").node
    assert {kernel.lookup("a").node for _ in range(2)} == {a}
    b = kernel.lookup("b").node
    kernel.batch_forget([(a, 2), (b, 1)])
    assert set(kernel.session.view.nodes.by_id) == {ROOT, a}
    kernel.batch_forget([(a, 1)])
    assert set(kernel.session.view.nodes.by_id) == {ROOT}


def test_the_root_is_never_forgotten(kernel: Kernel) -> None:
    kernel.forget(ROOT, 1 << 40)
    kernel.batch_forget([(ROOT, 1 << 63)])
    assert kernel.getattr(ROOT).mode == 0o40755


def test_forgetting_too_much_harms_nobody_else(kernel: Kernel) -> None:
    kernel.disk.do_file("a")
    first = kernel.lookup("a").node
    kernel.forget(first, 1 << 63)
    second = kernel.lookup("a")
    assert second.node != first
    kernel.forget(first, 5)
    assert kernel.getattr(second.node).size == 0
