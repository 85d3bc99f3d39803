"""Replay regression: the same results pass, the first that differs is named, no damaged file passes for agreement."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ad.errors import EdgeAdError
from edge_ad.frame import Result
from edge_ad.outputs.regression import ExpectResults, RecordResults

SETTINGS = {"backend": "onnxruntime", "precision": "fp32", "bundle": "abc"}


def result(number: int, seed: int = 0, shape: tuple[int, int] = (7, 9)) -> Result:
    rng = np.random.default_rng([seed, number])
    values = rng.random(shape).astype(np.float32)
    return Result(
        "anomalous", "ok", (), "nut", float(values.max()), 0.5, map=values, mask=values > 0.5, name=f"f{number}"
    )


def invalid(number: int) -> Result:
    nan = float("nan")
    return Result("invalid", "degraded", ("no frame",), "", nan, nan, name=f"f{number}")


def record(path: Path, results: list[Result], settings: dict[str, Any] | None = None) -> None:
    with RecordResults(path, settings or SETTINGS) as sink:
        for r in results:
            sink.write(None, r)


def expect(path: Path, results: list[Result]) -> int:
    sink = ExpectResults(path, SETTINGS)
    for r in results:
        sink.write(None, r)
    return sink.finish()


@given(st.lists(st.booleans(), max_size=6), st.integers(0, 99), st.integers(1, 20), st.integers(1, 20))
def test_the_same_results_agree(
    tmp_path_factory: pytest.TempPathFactory, good: list[bool], seed: int, h: int, w: int
) -> None:
    path = tmp_path_factory.mktemp("r") / "results.jsonl"
    results = [result(i, seed, (h, w)) if g else invalid(i) for i, g in enumerate(good)]
    record(path, results)
    assert expect(path, results) == len(results)


def changed(**changes: Any) -> list[Result]:
    return [result(0), replace(result(1), **changes), result(2)]


FLIPPED = result(1).mask.copy()  # type: ignore[union-attr]
FLIPPED[3, 4] ^= True
LAST_BIT = result(1).map.copy()  # type: ignore[union-attr]
LAST_BIT[0, 0] = np.nextafter(LAST_BIT[0, 0], np.float32(2))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mask": FLIPPED}, "the mask differs in 1 of 63 pixels, the first at x 4, y 3"),
        ({"mask": None}, "no mask, expected one"),
        ({"mask": np.zeros((7, 8), bool)}, "a mask of 8 x 7, expected 9 x 7"),
        ({"decision": "normal"}, "decision normal, expected anomalous"),
        ({"health": "degraded"}, "health degraded, expected ok"),
        ({"class_name": "gear"}, "class gear, expected nut"),
        ({"score": np.nextafter(result(1).score, 2)}, "score "),
        ({"threshold": 0.25}, "threshold 0.25, expected 0.5"),
        ({"map": LAST_BIT}, "the mask agrees, the map does not"),
        ({"name": "other"}, "it is named f1 there"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_the_first_difference_is_named(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    record(path, [result(i) for i in range(3)])
    with pytest.raises(EdgeAdError) as raised:
        expect(path, changed(**changes))
    assert words in str(raised.value) and str(raised.value).startswith("frame 1 (")
    assert "\n" not in str(raised.value)


def test_frames_too_few_and_too_many(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    record(path, [result(0), result(1)])
    with pytest.raises(EdgeAdError, match=r"ended after 1 frames; expected frame 1 \(f1\)"):
        expect(path, [result(0)])
    with pytest.raises(EdgeAdError, match=r"frame 2 \(f2\) is one too many"):
        expect(path, [result(0), result(1), result(2)])


def test_other_settings_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    record(path, [result(0)], {**SETTINGS, "backend": "openvino"})
    with pytest.raises(EdgeAdError, match="recorded with backend openvino, and this run has onnxruntime"):
        ExpectResults(path, SETTINGS)


def test_a_run_that_fails_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with pytest.raises(RuntimeError), RecordResults(path, SETTINGS) as sink:
        sink.write(None, result(0))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_nothing_has_its_name_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with RecordResults(path, SETTINGS) as sink:
        sink.write(None, result(0))
        assert not path.exists()
    assert path.exists() and len(list(tmp_path.iterdir())) == 1


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("cut", ["end", "middle", "count", "text", "foreign", "empty", "bits", "shape", "list"])
def test_damaged_files_never_pass(cut: str, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    results = [result(0), result(1)]
    record(path, results)
    all_lines = lines(path)
    frame = json.loads(all_lines[1])
    texts = {
        "end": all_lines[:-1],
        "middle": [*all_lines[:2], all_lines[2][:50]],
        "count": [all_lines[0], all_lines[1], json.dumps({"frames": 2})],
        "text": ["not json"],
        "foreign": ['{"a": 1}'],
        "empty": [],
        "bits": [all_lines[0], json.dumps({**frame, "mask": {**frame["mask"], "bits": "AAAA"}})],
        "shape": [all_lines[0], json.dumps({**frame, "mask": {**frame["mask"], "shape": [10**6, 10**6]}})],
        "list": ["[1, 2]"],
    }[cut]
    path.write_text("".join(f"{line}\n" for line in texts), encoding="utf-8")
    with pytest.raises(EdgeAdError):
        expect(path, results[:1] if cut == "count" else results)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(EdgeAdError, match="No such file"):
        ExpectResults(Path("/nowhere/results.jsonl"), SETTINGS)
    with pytest.raises(EdgeAdError, match="cannot write"):
        RecordResults(Path("/proc/none/results.jsonl"), SETTINGS)
