"""A bundle as one ``.tar``: packing, unpacking, and archives that are not to be trusted."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from edge_ad.bundle import Bundle, open_bundle, pack
from edge_ad.errors import EdgeAdError
from tests.bundle.harm import flip
from tests.bundles import THRESHOLD


def test_packing_is_deterministic_and_opens(bundle: Bundle, tmp_path: Path) -> None:
    (bundle.path / "engines").mkdir()
    (bundle.path / "engines/rgb.plan").write_bytes(b"of this box")
    a, b = pack(bundle, tmp_path / "a.tar"), pack(bundle, tmp_path / "b.tar")
    assert a.read_bytes() == b.read_bytes()
    opened = open_bundle(a)
    assert opened.manifest == bundle.manifest and opened.archive == a
    assert not (opened.path / "engines").exists()
    assert open_bundle(a).path == opened.path
    with pytest.raises(EdgeAdError, match="unpack it first"):
        opened.with_thresholds({"cap": THRESHOLD}, "fp32")
    with pytest.raises(EdgeAdError, match="exists already"):
        pack(bundle, a)
    flip(opened)
    with pytest.raises(EdgeAdError, match="delete the folder .*unpacked.* unpacked again"):
        open_bundle(a)
    flip(bundle)
    with pytest.raises(EdgeAdError, match="SHA-256"):
        pack(bundle, tmp_path / "c.tar")
    assert not (tmp_path / "c.tar").exists()


def test_a_folder_packed_by_hand_opens(bundle: Bundle, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "hand.tar", "w") as tar:
        tar.add(bundle.path, "tiny")
    assert open_bundle(tmp_path / "hand.tar").manifest == bundle.manifest


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    ("member", "text"),
    [
        (_member("../evil"), "unsafe file name"),
        (_member("/etc/evil"), "unsafe file name"),
        (_member("a/../../evil"), "unsafe file name"),
        (_member("x", tarfile.SYMTYPE, "/etc/passwd"), "link or a device"),
        (_member("x", tarfile.LNKTYPE, "manifest.json"), "link or a device"),
        (_member("x", tarfile.FIFOTYPE), "link or a device"),
    ],
)
def test_unsafe_archives_leave_nothing(bundle: Bundle, tmp_path: Path, member: tarfile.TarInfo, text: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with tarfile.open(folder / "evil.tar", "w") as tar:
        tar.add(bundle.path, "")
        tar.addfile(member)
    with pytest.raises(EdgeAdError, match=text):
        open_bundle(folder / "evil.tar")
    assert [p.name for p in folder.iterdir()] == ["evil.tar"]
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("keep", [0, 100, 5000])
def test_archives_that_are_cut_off(bundle: Bundle, tmp_path: Path, keep: int) -> None:
    tar = pack(bundle, tmp_path / "a.tar")
    tar.write_bytes(tar.read_bytes()[:keep])
    with pytest.raises(EdgeAdError, match="not a complete tar|holds no manifest"):
        open_bundle(tar)
    assert not list(tmp_path.glob("*.unpacked"))
