"""The table of states, and that inodes follow it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from farwatch.abi.fsnotify import Reason
from farwatch.client.fsnotify import Fsnotify, NodeId
from farwatch.client.fsnotify.lifetime import TABLE, Happening, Impossible, State, after
from farwatch.events import Mask
from farwatch.linux.inotify import IN_ONESHOT
from tests.client.fsnotify.facts import ALL, ended, of_node

NODES = [NodeId(number, 3) for number in range(1, 6)]
LIMIT = 2


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("happening", Happening)
def test_table(state: State, happening: Happening) -> None:
    if happening in TABLE[state]:
        assert after(state, happening) in State
    else:
        with pytest.raises(Impossible, match=f"{happening.name} while {state.name}"):
            after(state, happening)


def test_every_state_can_be_left_and_ends() -> None:
    assert TABLE.keys() == set(State)
    for state in (State.MARKED, State.LIMBO):
        assert State.UNMARKED in TABLE[state].values()
    assert State.LIMBO not in TABLE[State.UNMARKED].values()


class Lives(RuleBasedStateMachine):
    """Watches of two groups come and go; each watch ends with just one IGNORED, its last."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Fsnotify(limbo_limit=LIMIT)
        self.groups = [self.core.group(), self.core.group()]
        self.alive: list[dict[int, NodeId]] = [{}, {}]
        self.most = [0, 0]

    nodes = st.sampled_from(NODES)
    indices = st.integers(0, 1)

    @rule(index=indices, node=nodes, flags=st.sampled_from([0, IN_ONESHOT]))
    def add(self, index: int, node: NodeId, flags: int) -> None:
        known = {each: wd for wd, each in self.alive[index].items()}
        wd = self.groups[index].add_watch(node, ALL | flags, is_dir=False)
        assert wd == known.get(node, self.most[index] + 1)
        self.most[index] = max(self.most[index], wd)
        self.alive[index][wd] = node

    @precondition(lambda self: any(self.alive))
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        index = data.draw(st.sampled_from([i for i in (0, 1) if self.alive[i]]))
        wd = data.draw(st.sampled_from(sorted(self.alive[index])))
        assert self.groups[index].rm_watch(wd) == self.alive[index][wd]

    @rule(node=nodes)
    def limbo(self, node: NodeId) -> None:
        pushed = self.core.enter_limbo(node)
        assert len(pushed) <= 1
        assert not any(self.core.is_marked(each) for each in pushed)

    @rule(node=nodes, kind=st.sampled_from([Mask.OPEN, Mask.DELETE_SELF]))
    def tell(self, node: NodeId, kind: int) -> None:
        self.core.fsnotify(of_node(kind, node))

    @rule(node=nodes, reason=st.sampled_from(list(Reason)))
    def end(self, node: NodeId, reason: Reason) -> None:
        self.core.ended(ended(reason, node))

    @rule(node=nodes)
    def forget(self, node: NodeId) -> None:
        self.core.forget_inode(node)

    @rule()
    def unmount(self) -> None:
        self.core.unmount()

    @invariant()
    def watches_end_with_ignored(self) -> None:
        for group, alive in zip(self.groups, self.alive, strict=True):
            for event in group.read():
                assert event.wd in alive
                if event.mask & Mask.IGNORED:
                    del alive[event.wd]
            for wd, node in alive.items():
                assert group.watched(wd) == node

    @invariant()
    def marked_are_those_that_are_watched(self) -> None:
        self.watches_end_with_ignored()
        watched = {node for alive in self.alive for node in alive.values()}
        assert set(self.core.marked()) == watched
        for node in NODES:
            assert self.core.is_marked(node) == (node in watched)
            assert bool(self.core.union(node)) == (node in watched and not self.core.in_limbo(node))

    @invariant()
    def limbo_is_bounded(self) -> None:
        assert sum(map(self.core.in_limbo, NODES)) <= LIMIT


TestLives: Callable[[], object] = Lives.TestCase
