"""What is fetched for a guest, and what is made of it; no virtual machine."""

from __future__ import annotations

import io
import lzma
import struct
import subprocess
from pathlib import Path

import pytest

from tests.guest import kernel
from tests.guest.absent import NoGuest
from tests.guest.cpio import Archive
from tests.guest.modules import needed

pytestmark = pytest.mark.guest


def bzimage(payload: bytes) -> bytes:
    """An image whose setup has two sectors, and whose payload begins 64 bytes after it."""
    image = bytearray(512 * 3 + 64)
    image[0x1F1] = 2
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", image, 0x248, 64, len(payload) + 4)
    return bytes(image) + payload + struct.pack("<I", 1234) + b"what follows"


def test_what_is_compressed_in_a_known_way_is_decompressed() -> None:
    assert kernel.decompressed(bzimage(lzma.compress(b"\x7fELF"))) == b"\x7fELF"
    packed = subprocess.run(
        ["zstd", "-cq"], input=b"\x7fELF" * 1000, check=True, capture_output=True
    ).stdout
    assert kernel.decompressed(bzimage(packed)) == b"\x7fELF" * 1000


def test_what_is_not_stays_as_it_is() -> None:
    image = bzimage(b"\x02\x21\x4c\x18...")
    assert kernel.decompressed(image) == image
    with pytest.raises(NoGuest, match="no bzImage"):
        kernel.decompressed(bytes(4096))


def test_without_a_package_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(kernel.PACKAGES, "0.99", "linux-image-0[.]99-cloud-amd64")
    with pytest.raises(NoGuest, match=r"no cloud kernel 0\.99 .* apt-get update"):
        kernel.kernel("0.99")
    assert [path.name for path in kernel.cache().iterdir()] == ["kernel-0.99.lock"]


def test_what_the_archive_has_lost_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kernel, "_available", lambda _: ["linux-image-0.99-cloud-amd64"])
    with pytest.raises(NoGuest, match=r"apt-get .* linux-image-0\.99"):
        kernel.kernel("6.12")
    assert [path.name for path in kernel.cache().iterdir()] == ["kernel-6.12.lock"]


def module(depends: str) -> bytes:
    return b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0"


def test_modules_come_after_what_they_depend_on(tmp_path: Path) -> None:
    files = {"virtiofs": "fuse,virtio,virtio_ring", "fuse": "", "virtio-ring": "virtio", "x": ""}
    for name, depends in files.items():
        path = tmp_path / "kernel" / name / f"{name}.ko"
        path.parent.mkdir(parents=True)
        path.write_bytes(module(depends))
    (tmp_path / "modules.builtin").write_text("kernel/drivers/virtio/virtio.ko\n")
    order = [path.stem for path in needed(tmp_path, ["virtiofs"])]
    assert order == ["fuse", "virtio-ring", "virtiofs"]
    assert needed(tmp_path, ["virtio"]) == []
    with pytest.raises(NoGuest, match="no module other"):
        needed(tmp_path, ["other"])


def test_archives_are_what_cpio_reads(tmp_path: Path) -> None:
    file = io.BytesIO()
    archive = Archive(file)
    archive.add("/a/b/file", b"text", 0o750)
    archive.link("/a/link", "b/file")
    archive.directory("/empty")
    archive.close()
    busybox = ["busybox", "cpio", "-idu"]
    subprocess.run(busybox, input=file.getvalue(), cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "a" / "link").read_text() == "text"
    assert (tmp_path / "a" / "b" / "file").stat().st_mode & 0o777 == 0o750
    assert list((tmp_path / "empty").iterdir()) == []
