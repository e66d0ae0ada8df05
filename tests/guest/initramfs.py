"""The guest's root: an initramfs with BusyBox, Debian's Python, and what the tests run there.

    /init                   tests/guest/inside/init
    /bin /sbin              BusyBox
    /usr/bin/python3        this machine's (Debian's, whatever the project runs on), with a
                            trimmed standard library and the libraries that ldd names
    /usr/bin/inotifywait
    /guest/tests/…          programs of the tests, under their own paths
    /guest/farwatch-agent.pyz   what of farwatch runs in a guest, as it is shipped
    /modules                kernel modules, and the order in which to load them

It is an uncompressed archive in memory that the guest's kernel unpacks: every megabyte
counts at the start.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tests.guest.absent import NoGuest
from tests.guest.cpio import Archive
from tests.guest.kernel import Kernel, kernel
from tests.guest.modules import needed

PROJECT = Path(__file__).resolve().parents[2]
PYTHON = Path("/usr/bin/python3")
BUILD_AGENT = PROJECT / "scripts" / "build-agent"
AGENT = "/guest/farwatch-agent.pyz"
PROGRAMS = (
    "tests/guest/inside/wire.py",
    "tests/guest/inside/server.py",
    "tests/guest/inside/shell.sh",
    "tests/guest/inside/listener.py",
    "tests/guest/inside/reader.py",
    "tests/guest/inside/worker.py",
    "tests/conformance/watcher.py",
)
LEFT_OUT = re.compile(
    r"asyncio|config-.*|curses|dbm|dist-packages|distutils|email|ensurepip|html|http|idlelib"
    r"|lib2to3|msilib|multiprocessing|pydoc_data|site-packages|sqlite3|test|tkinter|tomllib"
    r"|turtledemo|unittest|venv|wsgiref|xml|xmlrpc|zoneinfo"
)
"""Parts of the standard library that nothing in a guest imports."""
LATE_LIBRARIES = ("libgcc_s.so.1",)
"""Libraries that no program names, because glibc loads them when it wants them."""
EXTENSIONS_LEFT_OUT = re.compile(r"_codecs_|_test|_sqlite|_tkinter|_ssl|_dbm|_curses|readline")


class Image(NamedTuple):
    """What a guest is started from."""

    kernel: Path
    initramfs: Path


def image(series: str, directory: Path) -> Image:
    """A guest with a kernel of ``series``; its root is made in ``directory``.  Raises NoGuest."""
    found = kernel(series)
    root = directory / f"initramfs-{series}"
    build(found, root)
    return Image(found.image, root)


def build(kernel: Kernel, path: Path) -> None:
    """Write the root for ``kernel`` to the file ``path``.  Raises NoGuest."""
    with path.open("wb") as file:
        archive = Archive(file)
        archive.copy(Path(__file__).with_name("inside") / "init", "/init")
        archive.device("/dev/console", 5, 1)
        for directory in ("/proc", "/sys", "/tmp", "/mnt", "/run", "/root"):
            archive.directory(directory)
        _busybox(archive)
        binaries = [_program("inotifywait"), *_python(archive)]
        archive.copy(binaries[0], "/usr/bin/inotifywait")
        for library in libraries([*binaries, *map(_library, LATE_LIBRARIES)]):
            archive.copy(library.resolve(), str(library))
        _modules(archive, kernel)
        _project(archive)
        archive.close()


def _busybox(archive: Archive) -> None:
    busybox = _program("busybox")
    archive.copy(busybox, "/bin/busybox")
    for library in libraries([busybox]):
        archive.copy(library.resolve(), str(library))
    for applet in _output([str(busybox), "--list"]).split():
        if applet not in ("busybox", "init"):
            archive.link(f"/bin/{applet}", "/bin/busybox")
    archive.link("/sbin", "/bin")


def _python(archive: Archive) -> list[Path]:
    """Adds the interpreter and its library; returns the binaries, for their libraries."""
    if not PYTHON.exists():
        raise NoGuest(f"{PYTHON} is not here (package python3-minimal)")
    told = _output([str(PYTHON), "-c", "import sysconfig as s; print(s.get_path('stdlib'))"])
    binary, tree = PYTHON.resolve(), Path(told.strip())
    archive.copy(binary)
    archive.link("/usr/bin/python3", binary.name)
    binaries = [binary]
    for path in _standard_library(tree):
        archive.copy(path.resolve(), str(path))
        if path.suffix == ".so":
            binaries.append(path)
    return binaries


def _standard_library(tree: Path) -> Iterator[Path]:
    if not (tree / "json").exists():
        raise NoGuest(f"{tree} lacks modules (package libpython3-stdlib)")
    for path in sorted(tree.rglob("*")):
        parts = path.relative_to(tree).parts
        optimised = ".opt-" in path.name
        if LEFT_OUT.fullmatch(parts[0]) or optimised or EXTENSIONS_LEFT_OUT.search(path.name):
            continue
        if path.is_file() and path.suffix in (".py", ".pyc", ".so"):
            yield path


def _modules(archive: Archive, kernel: Kernel) -> None:
    files = needed(kernel.modules)
    for file in files:
        archive.copy(file, f"/modules/{file.name}")
    if files:
        archive.add("/modules/order", "".join(f"{file.name}\n" for file in files).encode())


def _project(archive: Archive) -> None:
    for program in PROGRAMS:
        archive.copy(PROJECT / program, f"/guest/{program}")
    with TemporaryDirectory(prefix="farwatch-test-") as directory:
        _output([sys.executable, str(BUILD_AGENT), directory])
        archive.add(AGENT, (Path(directory) / Path(AGENT).name).read_bytes(), 0o755)


def libraries(binaries: Iterable[Path]) -> list[Path]:
    """What the dynamic linker loads for these, as ldd tells; the linker too."""
    found: set[Path] = set()
    for binary in binaries:
        found.update(Path(name) for name in re.findall(r"(/\S+) \(0x", _ldd(binary)))
    return sorted(found)


def _ldd(binary: Path) -> str:
    # It fails for a static program, which needs none.
    return subprocess.run(["ldd", str(binary)], check=False, capture_output=True, text=True).stdout


def _library(name: str) -> Path:
    for line in _output(["/sbin/ldconfig", "-p"]).splitlines():
        words = line.split()
        if words and words[0] == name and "x86-64" in line:
            return Path(words[-1])
    raise NoGuest(f"{name} is not here (package libgcc-s1)")


def _program(name: str) -> Path:
    path = shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin")
    if path is None:
        raise NoGuest(f"{name} is not here; `make system-packages` installs it")
    return Path(path)


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NoGuest(str(error)) from None
    return done.stdout
