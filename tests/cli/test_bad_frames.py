"""A frame that cannot be inspected is ``decision: invalid`` with the reason, and the run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.cli.place import Place, call, cut, leftovers, mvtec, redraw
from tests.disk import write_recordings


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    tifffile.imwrite(path, change(tifffile.imread(path)), photometric="rgb")


def only(rows: slice, cols: slice, border: bool = False) -> Callable[[np.ndarray], np.ndarray]:
    """Depth is kept in one window, and at the left border if asked."""

    def keep(depth: np.ndarray) -> np.ndarray:
        kept = np.zeros_like(depth)
        kept[rows, cols] = depth[rows, cols]
        if border:
            kept[:, :3] = depth[:, :3]
        return kept

    return keep


FIVE = only(slice(30, 31), slice(30, 35))
SPECK = only(slice(29, 31), slice(34, 36), border=True)
DEPTH, COLOUR = "r1.depth.png", "r1.color.png"
XYZ, RGB = "cookie/test/good/xyz/001.tiff", "cookie/test/good/rgb/001.png"
FRAMES: list[tuple[str, Callable[[Path], Path], Callable[[Path], None], str]] = [
    ("depth all zero", write_recordings, lambda d: redraw(d / DEPTH, np.zeros_like), "no pixel has depth"),
    ("fewer points than a group", write_recordings, lambda d: redraw(d / DEPTH, FIVE), "only 0 points with depth on"),
    ("a part smaller than a group", write_recordings, lambda d: redraw(d / DEPTH, SPECK), "no part stands above"),
    (
        "colour of another size",
        write_recordings,
        lambda d: redraw(d / COLOUR, lambda i: i[:40]),
        "72 x 60; expected 72 x 40",
    ),
    ("depth of 8 bits", write_recordings, lambda d: redraw(d / DEPTH, lambda i: (i >> 8).astype(np.uint8)), "16 bits"),
    ("depth cut short", write_recordings, lambda d: cut(d / DEPTH), "the PNG is cut short"),
    ("colour cut short", write_recordings, lambda d: cut(d / COLOUR), "the PNG is cut short"),
    ("colour empty", write_recordings, lambda d: (d / COLOUR).write_bytes(b"") and None, "is empty (0 bytes)"),
    ("depth missing", write_recordings, lambda d: (d / DEPTH).unlink(), "does not exist"),
    ("xyz all NaN", mvtec, lambda d: rewrite(d / XYZ, lambda x: x * np.float32(np.nan)), "no pixel has depth"),
    ("xyz all zero", mvtec, lambda d: rewrite(d / XYZ, np.zeros_like), "no pixel has depth"),
    ("xyz cut short", mvtec, lambda d: cut(d / XYZ), "the TIFF is cut short"),
    ("xyz in millimetres", mvtec, lambda d: rewrite(d / XYZ, lambda x: x * 1000), "expected metres"),
    ("xyz of another size", mvtec, lambda d: rewrite(d / XYZ, lambda x: x[:40]), "72 x 40; expected 72 x 60"),
    ("colour of mvtec cut short", mvtec, lambda d: cut(d / RGB), "the PNG is cut short"),
]


@pytest.mark.parametrize(("make", "harm", "message"), [f[1:] for f in FRAMES], ids=[f[0] for f in FRAMES])
def test_a_bad_frame_is_invalid_and_the_run_goes_on(
    place: Place, make: Callable[[Path], Path], harm: Callable[[Path], None], message: str
) -> None:
    folder = make(place.root / "frames")
    harm(folder)
    done = call(
        "run", place.ready, "--camera", f"folder:{folder}", "--class", "cookie", "--output", f"folder:{place.out}"
    )
    assert done.exit_code == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["decision"] for line in lines] == ["normal", "invalid", "normal"]
    (reason,) = lines[1]["reasons"]
    assert any(m in reason for m in message.split("|")), reason
    assert "\n" not in reason
    assert "2 normal, 1 invalid" in done.stderr
    kept = [json.loads(line) for line in (place.out / "results.jsonl").read_text().splitlines()]
    assert [line["decision"] for line in kept] == ["normal", "invalid", "normal"]
    assert leftovers(place.root) == []
