"""The table of nodes, and the tree as told."""

from __future__ import annotations

from stat import S_IFDIR, S_IFREG

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farwatch.export.nodes import FIRST_ID, ROOT_ID, Node, NodeTable

FILE, DIRECTORY = S_IFREG | 0o644, S_IFDIR | 0o755


@pytest.fixture
def table() -> NodeTable:
    return NodeTable(b"root", 77)


def known(table: NodeTable, key: bytes, mode: int = FILE) -> Node:
    node = table.obtain(key, mode)
    node.lookups = 1
    return node


def consistent(table: NodeTable) -> None:
    """Children and names say the same, of nodes that are there."""
    assert {node.key: node for node in table.by_id.values()} == table.by_key
    for node in table.by_id.values():
        for name, child in (node.children or {}).items():
            assert (node, name) in child.names
            assert table.by_id[child.id] is child
        for directory, name in node.names:
            assert directory.children is not None
            assert directory.children[name] is node
        assert len(set(node.names)) == len(node.names)
        if node.is_dir:
            assert len(node.names) <= 1


def test_the_root_is_there(table: NodeTable) -> None:
    assert (table.root.id, table.root.is_dir, len(table)) == (ROOT_ID, True, 1)
    assert table.generation_of(table.root) == 0
    assert table.obtain(b"root", FILE) is table.root


def test_a_key_is_one_node(table: NodeTable) -> None:
    node = table.obtain(b"a", FILE)
    assert table.obtain(b"a", FILE) is node
    assert node.id >= FIRST_ID
    assert table.generation_of(node) == 77
    assert node.kind == S_IFREG


def test_ids_are_never_used_twice(table: NodeTable) -> None:
    ids = set()
    for _ in range(10):
        node = known(table, b"a")
        ids.add(node.id)
        table.forget(node.id, 1)
    assert len(ids) == 10


def test_forget(table: NodeTable) -> None:
    node = known(table, b"a")
    node.lookups = 3
    table.forget(node.id, 2)
    assert b"a" in table.by_key
    table.forget(node.id, 1)
    assert (len(table), table.by_key.get(b"a")) == (1, None)
    table.forget(node.id, 1)
    table.forget(ROOT_ID, 100)
    assert len(table) == 1


def test_a_pin_keeps_a_node(table: NodeTable) -> None:
    node = known(table, b"a")
    table.pin(node)
    table.pin(node)
    table.forget(node.id, 1)
    table.unpin(node)
    assert table.by_id[node.id] is node
    table.unpin(node)
    assert node.id not in table.by_id


def test_forgetting_a_directory_leaves_its_children(table: NodeTable) -> None:
    directory, child = known(table, b"d", DIRECTORY), known(table, b"f")
    table.tell(table.root, b"d", directory)
    table.tell(directory, b"f", child)
    table.forget(directory.id, 1)
    assert child.names == ()
    assert table.root.children == {}
    assert table.by_id[child.id] is child
    consistent(table)


def test_forgetting_a_child_takes_its_names(table: NodeTable) -> None:
    node = known(table, b"f")
    for name in (b"a", b"b"):
        table.tell(table.root, name, node)
    table.forget(node.id, 1)
    assert table.root.children == {}


def test_a_name_that_holds_another_node_now(table: NodeTable) -> None:
    old, new = known(table, b"old"), known(table, b"new")
    table.tell(table.root, b"x", old)
    table.tell(table.root, b"x", new)
    assert (old.names, new.names) == ((), ((table.root, b"x"),))
    table.forget(old.id, 1)
    assert table.child(table.root, b"x") is new


def test_a_directory_has_one_name(table: NodeTable) -> None:
    directory = known(table, b"d", DIRECTORY)
    table.tell(table.root, b"a", directory)
    table.tell(table.root, b"b", directory)
    assert table.root.children == {b"b": directory}


def test_a_file_holds_no_names(table: NodeTable) -> None:
    file, other = known(table, b"f"), known(table, b"g")
    with pytest.raises(NotADirectoryError):
        table.tell(file, b"x", other)
    assert table.child(file, b"x") is None
    assert table.untell(file, b"x") is None


def test_move_returns_what_it_replaced(table: NodeTable) -> None:
    one, two = known(table, b"1"), known(table, b"2")
    table.tell(table.root, b"a", one)
    table.tell(table.root, b"b", two)
    assert table.move(table.root, b"a", table.root, b"b") is two
    assert table.root.children == {b"b": one}
    assert two.names == ()
    assert table.move(table.root, b"nothing", table.root, b"b") is one
    assert table.root.children == {}


def test_exchange_of_one_that_is_not_known(table: NodeTable) -> None:
    one = known(table, b"1")
    table.tell(table.root, b"a", one)
    table.exchange(table.root, b"a", table.root, b"b")
    assert table.root.children == {b"b": one}


KEYS = st.sampled_from([b"f1", b"f2", b"f3", b"d1", b"d2"])
ACTIONS = st.sampled_from(
    ["tell", "untell", "move", "exchange", "forget", "pin", "unpin", "lookup"]
)
NAMES = st.sampled_from([b"a", b"b", b"c"])
DIRECTORIES = st.sampled_from([b"root", b"d1", b"d2"])


@given(
    st.lists(
        st.tuples(
            ACTIONS,
            DIRECTORIES, NAMES, DIRECTORIES, NAMES, KEYS,
        ),
        max_size=40,
    )
)  # fmt: skip
def test_it_stays_consistent(
    actions: list[tuple[str, bytes, bytes, bytes, bytes, bytes]],
) -> None:
    table = NodeTable(b"root", 1)

    def node(key: bytes) -> Node:
        return table.obtain(key, DIRECTORY if key[:1] in b"dr" else FILE)

    for what, directory, name, other, other_name, key in actions:
        match what:
            case "tell":
                table.tell(node(directory), name, node(key))
            case "untell":
                table.untell(node(directory), name)
            case "move":
                table.move(node(directory), name, node(other), other_name)
            case "exchange":
                if (directory, name) != (other, other_name):
                    table.exchange(node(directory), name, node(other), other_name)
            case "forget":
                table.forget(node(key).id, 1)
            case "pin":
                table.pin(node(key))
            case "unpin":
                if node(key).pins:
                    table.unpin(node(key))
            case "lookup":
                node(key).lookups += 1
        consistent(table)
    for key, found in list(table.by_key.items()):
        if key != b"root":
            found.pins = 0
            table.forget(found.id, found.lookups)
    consistent(table)
    assert table.root.children == {}
