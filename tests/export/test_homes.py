"""Directories that are forgotten before what is in them."""

from __future__ import annotations

import pytest

from farwatch.export.homes import Homes
from farwatch.export.nodes import NodeTable


@pytest.fixture
def homes() -> Homes:
    return Homes()


def test_what_is_empty_is_given_back(homes: Homes) -> None:
    assert homes.forget(b"d", ()) == [b"d"]
    assert homes.forget(b"d", ()) == [b"d"], "it was known again meanwhile"


def test_it_is_held_until_the_last_is_forgotten(homes: Homes) -> None:
    assert homes.forget(b"d", [b"f", b"g"]) == []
    assert homes.forget(b"f", ()) == [b"f"]
    assert homes.forget(b"g", ()) == [b"g", b"d"]


def test_known_again_and_forgotten_again(homes: Homes) -> None:
    assert homes.forget(b"d", [b"f"]) == []
    assert homes.forget(b"d", ()) == [], "f is in there still"
    assert homes.forget(b"d", [b"g"]) == []
    assert homes.forget(b"f", ()) == [b"f"]
    assert homes.forget(b"g", ()) == [b"g", b"d"]


def test_a_node_in_two_directories(homes: Homes) -> None:
    assert homes.forget(b"d", [b"f"]) == []
    assert homes.forget(b"e", [b"f"]) == []
    assert sorted(homes.forget(b"f", ())) == [b"d", b"e", b"f"]


def test_a_home_in_a_home(homes: Homes) -> None:
    assert homes.forget(b"outer", [b"inner"]) == []
    assert homes.forget(b"inner", [b"f"]) == [b"outer"]
    assert homes.forget(b"f", ()) == [b"f", b"inner"]


class Told:
    """A holder that notes what it is told."""

    def __init__(self) -> None:
        self.said: list[tuple[bytes, list[bytes]]] = []

    def keep(self, node: bytes) -> None:
        pass

    def let_go(self, node: bytes, inside: object = ()) -> None:
        assert isinstance(inside, list)
        self.said.append((node, inside))


def test_the_client_says_what_it_still_knows_in_there() -> None:
    told = Told()
    table = NodeTable(b"root", 1, holder=told)
    directory = table.obtain(b"d", 0o40755)
    for key in (b"f", b"g"):
        node = table.obtain(key, 0o100644)
        node.lookups = 1
        table.tell(directory, key, node)
    directory.lookups = 1
    table.forget(table.by_key[b"g"].id, 1)
    table.forget(directory.id, 1)
    table.forget(table.by_key[b"f"].id, 1)
    assert told.said == [(b"g", []), (b"d", [b"f"]), (b"f", [])]
