"""The table of layers in ARCHITECTURE.md against what is imported."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "farwatch"
TABLE = (ROOT / "ARCHITECTURE.md").read_text().partition("## Layers")[2].partition("\n## ")[0]
LAYERS = re.findall(r"^\| `(\w+)` \|", TABLE, re.MULTILINE)
NOT_FOR_CLIENT = {"export", "session", "serving"}


def imported(layer: str) -> Iterator[tuple[str, Path]]:
    """Each other layer that one imports from, and where."""
    package = PACKAGE / layer
    for path in package.rglob("*.py") if package.is_dir() else [package.with_suffix(".py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            modules: list[str] = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                modules = [f"{node.module}.{alias.name}" for alias in node.names]
            for module in modules:
                top, _, rest = module.partition(".")
                name = rest.partition(".")[0]
                if top == "farwatch" and name not in (layer, "__version__"):
                    yield name, path


def test_every_layer_is_in_the_table() -> None:
    modules = [path for path in PACKAGE.iterdir() if path.is_dir() or path.suffix == ".py"]
    assert set(LAYERS) == {path.stem for path in modules if not path.name.startswith("_")}


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_go_up_the_table(layer: str) -> None:
    above = set(LAYERS[: LAYERS.index(layer)])
    assert [(name, path) for name, path in imported(layer) if name not in above] == []


def test_a_client_takes_nothing_from_the_server() -> None:
    assert {name for name, _ in imported("client")}.isdisjoint(NOT_FOR_CLIENT)
