"""Which modules a kernel needs to be a guest here, and in which order they are loaded.

Debian's package has no modules.dep (depmod makes it where a kernel is installed), so the
dependencies are read from the modules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tests.guest.absent import NoGuest

NEEDED = ("virtio_pci", "virtio_console", "virtiofs")
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
"""An entry of the section .modinfo."""


def needed(tree: Path, names: Iterable[str] = NEEDED) -> list[Path]:
    """Files to load, in order, of a tree like /lib/modules/VERSION; none that is built in.

    Raises NoGuest if there is none of a name, or it is compressed.
    """
    built_in = {Path(line).stem for line in (tree / "modules.builtin").read_text().split()}
    built_in = {name.replace("-", "_") for name in built_in}
    files = {path.name: path for path in (tree / "kernel").rglob("*.ko*")}
    order: list[Path] = []

    def visit(name: str) -> None:
        if name in built_in:
            return
        path = files.get(f"{name}.ko") or files.get(f"{name.replace('_', '-')}.ko")
        if path is None:
            raise NoGuest(f"the kernel has no module {name} that can be loaded as it is")
        if path in order:
            return
        found = _DEPENDS.search(path.read_bytes())
        for dependency in filter(None, found[1].decode().split(",") if found else ()):
            visit(dependency.replace("-", "_"))
        order.append(path)

    for name in names:
        visit(name)
    return order
