"""Debian's stock cloud kernels: fetched with apt, unpacked, and kept outside the tree.

    $XDG_CACHE_HOME/farwatch/guest/kernel-6.12/   (~/.cache without the variable)
        package     linux-image-6.12.117+deb12-cloud-amd64 6.12.117-1~deb12u1
        image       vmlinux, decompressed, which spares the guest most of a second at every start;
                    6.1 (LZ4) as it is
        modules/    kernel/… and modules.builtin, as in /lib/modules/VERSION

A directory appears whole, by a rename; a lock keeps two sessions from fetching the same
one.  What is there is used as it is: remove it for a newer kernel.  APT is used as the
machine has configured it, and nothing is installed.
"""

from __future__ import annotations

import fcntl
import lzma
import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.guest.absent import NoGuest

PACKAGES = {
    "6.12": r"linux-image-6\.12\.[0-9]+\+deb[0-9]+-cloud-amd64",
    "6.1": r"linux-image-6\.1\.[0-9]+-[0-9]+-cloud-amd64",
}
"""Series of kernels → regular expression of the names of Debian's packages."""
FETCH_SECONDS = 300.0
SETUP_SECTORS, HEADER_MAGIC, PAYLOAD = 0x1F1, 0x202, 0x248
"""Offsets in a bzImage: setup_sects, "HdrS", payload_offset and payload_length
(Documentation/arch/x86/boot.rst)."""
SECTOR = 512
SIZE_TRAILER = 4
"""Bytes after the compressed payload: its size, appended by the kernel's build."""


class Kernel(NamedTuple):
    """A kernel that QEMU can start."""

    series: str
    package: str
    """Name and version, as Debian has it."""
    image: Path
    modules: Path


def cache() -> Path:
    """The directory for what is fetched; made if missing."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    path = Path(base) / "farwatch" / "guest"
    path.mkdir(parents=True, exist_ok=True)
    return path


def kernel(series: str) -> Kernel:
    """The kernel of a series, fetched if it is not in the cache.  Raises NoGuest."""
    place = cache() / f"kernel-{series}"
    with _locked(place.with_suffix(place.suffix + ".lock")):
        if not place.exists():
            _fetch(series, place)
    package = (place / "package").read_text().strip()
    return Kernel(series, package, place / "image", place / "modules")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(series: str, place: Path) -> None:
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f"{place.name}.") as made:
        new = Path(made) / "new"
        new.mkdir()
        archive = _download(series, Path(made))
        name, version, _ = archive.name.split("_", 2)
        unpacked = Path(made) / "unpacked"
        _run(["dpkg", "-x", str(archive), str(unpacked)])
        (image,) = (unpacked / "boot").glob("vmlinuz-*")
        (modules,) = (unpacked / "lib" / "modules").iterdir()
        (new / "image").write_bytes(decompressed(image.read_bytes()))
        shutil.move(modules, new / "modules")
        (new / "package").write_text(f"{name} {version.replace('%3a', ':')}\n")
        new.rename(place)


def _download(series: str, directory: Path) -> Path:
    names = _available(series)
    if not names:
        raise NoGuest(
            f"APT knows no cloud kernel {series} (bookworm-security or bookworm-backports has it);"
            " see /etc/apt/sources.list and apt-get update"
        )
    said = ""
    # A list that is older than the archive names packages that are gone.
    for name in names[:3]:
        try:
            _run(["apt-get", "-q", "download", name], directory)
        except NoGuest as failed:
            said = str(failed)
            continue
        (archive,) = directory.glob("*.deb")
        return archive
    raise NoGuest(f"{said}; if APT's lists are old: apt-get update")


def _available(series: str) -> list[str]:
    """Names of packages that APT knows, the newest first."""
    pattern = f"^{PACKAGES[series]}$"
    found = _run(["apt-cache", "search", "--names-only", pattern]).split("\n")
    names = [line.partition(" ")[0] for line in found if line]
    return sorted(names, key=lambda name: list(map(int, re.findall("[0-9]+", name))), reverse=True)


def _run(command: list[str], directory: Path | None = None) -> str:
    try:
        done = subprocess.run(
            command,
            check=True,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=FETCH_SECONDS,
        )
    except FileNotFoundError:
        raise NoGuest(f"{command[0]} is not here") from None
    except subprocess.TimeoutExpired:
        raise NoGuest(f"{' '.join(command)}: no end within {FETCH_SECONDS:.0f} s") from None
    except subprocess.CalledProcessError as failed:
        said = (failed.stderr.strip() or "?").splitlines()[-1]
        raise NoGuest(f"{' '.join(command)}: {said}") from None
    return done.stdout


def decompressed(image: bytes) -> bytes:
    """The ELF file inside a bzImage; the bzImage if its compression is another than zstd and xz."""
    if image[HEADER_MAGIC : HEADER_MAGIC + 4] != b"HdrS":
        raise NoGuest("the kernel's image is no bzImage")
    offset, length = struct.unpack_from("<II", image, PAYLOAD)
    at = (image[SETUP_SECTORS] + 1) * SECTOR + offset
    payload = image[at : at + length - SIZE_TRAILER]
    if payload.startswith(b"\xfd7zXZ\0"):
        return lzma.decompress(payload)
    if not payload.startswith(b"\x28\xb5\x2f\xfd"):
        return image
    try:
        return subprocess.run(
            ["zstd", "-dcq"], input=payload, check=True, capture_output=True
        ).stdout
    except FileNotFoundError:
        raise NoGuest("zstd is not here") from None
