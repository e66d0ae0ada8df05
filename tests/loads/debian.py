"""Sources of Debian's packages, from wherever this machine has its packages from."""

from __future__ import annotations

import re
from pathlib import Path

from tests.loads.commands import require, run

_SYSTEM = Path("/etc/apt")
_KEYS = "debian-archive-keyring"


def fetch_source(package: str, directory: Path) -> Path:
    """Upstream's archive, checked by apt-get; ``directory`` is used for all that this needs."""
    require("apt-get", "a Debian system")
    for name in ("lists/partial", "cache", "parts"):
        (directory / name).mkdir(parents=True)
    for number, text in enumerate(_with_sources()):
        (directory / "parts" / f"{number}.sources").write_text(text)
    options = {
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": directory / "parts",
        "Dir::State::Lists": directory / "lists",
        "Dir::Cache": directory / "cache",
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in options.items())]
    run(*apt, "update")
    run(*apt, "source", "--download-only", package, cwd=directory)
    (archive,) = directory.glob("*.orig.tar.*z")
    return archive


def _with_sources() -> list[str]:
    """The system's own list, with sources in the place of packages."""
    found = []
    for path in sorted(_SYSTEM.glob("sources.list.d/*.sources")):
        text = path.read_text()
        if _KEYS in text:
            found.append(re.sub(r"(?m)^Types:.*$", "Types: deb-src", text))
    for path in (_SYSTEM / "sources.list", *sorted(_SYSTEM.glob("sources.list.d/*.list"))):
        for line in path.read_text().splitlines() if path.exists() else ():
            words = re.fullmatch(r"deb (?:\[.*\] )?(\S*debian\S*) (\S+) (.*)", line.strip())
            if words is not None:
                uri, suite, components = words.groups()
                stanza = f"Types: deb-src\nURIs: {uri}\nSuites: {suite}\n"
                found.append(f"{stanza}Components: {components}\n")
    assert found, "this machine has no packages of Debian's"
    return found
