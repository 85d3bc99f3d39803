"""The shared-memory ring: frames come out as they went in, through another process's descriptor, without pickles."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ad.frame import Frame, Intrinsics
from edge_ad.sensors import capture
from edge_ad.sensors.capture.ring import Ring, slot_size


def frame(seed: int = 0, height: int = 6, width: int = 8, **changes: object) -> Frame:
    rng = np.random.default_rng(seed)
    fields: dict[str, object] = {
        "colour": rng.integers(0, 255, (height, width, 3), dtype=np.uint8),
        "depth": rng.integers(0, 9000, (height, width), dtype=np.uint16),
        "depth_scale_m": 1e-4,
        "intrinsics": Intrinsics(width, height, 9.0, 9.0, 4.0, 3.0, (0.1, 0.2)),
        "sequence": seed,
        "name": f"f{seed}",
        "colour_timestamp_s": 1.25,
        "depth_timestamp_s": 1.5,
        "flags": ("repeated",),
    }
    return Frame(**{**fields, **changes})  # type: ignore[arg-type]


def same(a: Frame, b: Frame) -> bool:
    for f in dataclasses.fields(Frame):
        one, two = getattr(a, f.name), getattr(b, f.name)
        if isinstance(one, np.ndarray):
            if not (
                isinstance(two, np.ndarray) and one.dtype == two.dtype and np.array_equal(one, two, equal_nan=True)
            ):
                return False
        elif one != two:
            return False
    return True


@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from(["depth", "float", "xyz"]), st.integers(0, 3))
def test_a_frame_comes_out_as_it_went_in(height: int, width: int, kind: str, slot: int) -> None:
    rng = np.random.default_rng(height)
    changes: dict[str, object] = {"intrinsics": None, "class_name": None}
    if kind == "float":
        depth = rng.random((height, width)).astype(np.float32)
        depth.flat[0] = np.nan
        changes["depth"] = depth
    elif kind == "xyz":
        changes |= {"depth": None, "xyz": rng.random((height, width, 3)).astype(np.float32)}
    given_frame = frame(height, height, width, **changes)
    ring = Ring.create(4, slot_size(given_frame))
    try:
        document = json.loads(json.dumps(ring.write(slot, given_frame)))
        assert same(ring.read(document), given_frame)
    finally:
        ring.close()


def test_another_descriptor_sees_the_same_memory_and_frames_keep_their_own() -> None:
    first = Ring.create(2, slot_size(frame()))
    second = Ring(os.dup(first.fd), 2, first.slot_bytes)
    document = first.write(1, frame(3))
    read = second.read(document)
    first.write(1, frame(4))
    first.close()
    assert same(read, frame(3))
    assert not same(second.read(document), frame(3))
    second.close()


def test_a_frame_that_does_not_fit_is_refused_and_leaves_its_neighbour_alone() -> None:
    ring = Ring.create(2, slot_size(frame()))
    document = ring.write(1, frame(5))
    with pytest.raises(ValueError, match="in a slot of"):
        ring.write(0, frame(0, 12, 16))
    assert same(ring.read(document), frame(5))
    ring.close()


def test_no_name_in_the_file_system_and_no_descriptor_left() -> None:
    shm = Path("/dev/shm")
    before = sorted(p.name for p in shm.iterdir()) if shm.is_dir() else []
    descriptors = len(os.listdir("/proc/self/fd"))
    ring = Ring.create(8, 1 << 20)
    assert (sorted(p.name for p in shm.iterdir()) if shm.is_dir() else []) == before
    ring.close()
    ring.close()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_the_capture_package_imports_no_pickle() -> None:
    folder = Path(inspect.getfile(capture)).parent
    names: set[str] = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {a.name.split(".")[0] for a in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add((node.module or "").split(".")[0])
    assert not names & {"pickle", "marshal", "shelve", "multiprocessing"}
    assert "mmap" in names
