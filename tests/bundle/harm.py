"""Ways to spoil a bundle's folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable

from edge_ad.bundle import Bundle


def edit(bundle: Bundle, change: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
    path = bundle.path / "manifest.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def delete(b: Bundle) -> None:
    (b.path / "onnx/rgb.onnx").unlink()


def flip(b: Bundle) -> None:
    path = b.path / "onnx/rgb.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def stray(b: Bundle) -> None:
    (b.path / "onnx/extra.onnx").write_bytes(b"x")


def link_out(b: Bundle) -> None:
    outside = b.path.parent / "outside.onnx"
    shutil.move(b.path / "onnx/rgb.onnx", outside)
    (b.path / "onnx/rgb.onnx").symlink_to(outside)


def truncate_manifest(b: Bundle) -> None:
    path = b.path / "manifest.json"
    path.write_bytes(path.read_bytes()[:200])
