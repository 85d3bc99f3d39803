"""``edge-ad verify``: equal sides agree, a changed one is found, and where it parts is named."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

from edge_ad.bundle import Bundle, add_files, open_bundle
from edge_ad.cli.main import main
from edge_ad.engines.compare import correlation, overlap, relative_error, worst_pixel
from edge_ad.engines.cost import write_cost
from edge_ad.engines.verify import Side, verify
from edge_ad.errors import EdgeAdError
from edge_ad.export.bisect import bisect, bisect_graph, runner
from tests.bundles import mlp
from tests.disk import copy_with_limits, write_parts

SCALED = "_blocks.2"


def with_int8(source: Path, target: Path, factor: float) -> Bundle:
    """A bundle whose "int8" graphs are the float32 ones, one convolution of the colour encoder times ``factor``."""
    copy_with_limits(source, target, 1e6)
    bundle = open_bundle(target)
    files = {f"onnx/int8/{g}.onnx": bundle.graph_path(g).read_bytes() for g in bundle.manifest.graphs}
    model = onnx.load(str(bundle.graph_path("rgb")))
    node = next(n for n in model.graph.node if SCALED in n.name and n.op_type == "Conv")
    for tensor in model.graph.initializer:
        if tensor.name == node.input[1]:
            array = (numpy_helper.to_array(tensor) * factor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    files["onnx/int8/rgb.onnx"] = model.SerializeToString()
    return add_files(bundle, files)


@pytest.fixture(scope="module")
def equal(tiny_export: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return with_int8(tiny_export, tmp_path_factory.mktemp("verify") / "equal", 1.0)


@pytest.fixture(scope="module")
def other(tiny_export: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return with_int8(tiny_export, tmp_path_factory.mktemp("verify") / "other", -2.0)


def run(*args: object) -> tuple[int, str, str]:
    shown = CliRunner().invoke(main, ["verify", *map(str, args)])
    assert "Traceback" not in shown.output
    return shown.exit_code, shown.stdout, shown.stderr


def test_equal_sides_agree(equal: Bundle) -> None:
    code, out, _ = run(equal.path, "--backend", "onnxruntime", "--precision", "int8", "--threads", 1, "--json")
    report = json.loads(out)
    assert code == 0 and report["first_difference"] is None and report["decision_changes"] == []
    assert report["least_correlation"] == pytest.approx(1) and report["worst_pixel"] == 0
    assert set(report["graph_errors"]) == {"rgb", "points", "tokens", "score"} and len(report["parts"]) == 4
    assert report["parts"][0]["decision"] is None, "int8 has no limits of its own"


def test_the_first_graph_that_differs_is_named_and_looked_into(other: Bundle) -> None:
    args = (other.path, "--backend", "onnxruntime", "--precision", "int8", "--threads", 1, "--frames", 2)
    code, out, err = run(*args, "--bisect", "auto")
    assert code == 1 and "error: onnxruntime int8 is not onnxruntime fp32" in err
    assert "rgb" in next(line for line in out.splitlines() if "<- first difference" in line)
    inside = out[out.index("inside rgb") :]
    first = next(line for line in inside.splitlines() if "<- first difference" in line)
    assert SCALED in first and "Conv" in first
    code, _, err = run(*args)
    assert code == 1 and "look inside with --bisect auto" in err


def test_limits_decide_and_changes_are_listed(other: Bundle, tmp_path: Path) -> None:
    from edge_ad.bundle import Threshold

    shutil.copytree(other.path, tmp_path / "b")
    bundle = open_bundle(tmp_path / "b")
    for precision, value in (("fp32", 1e6), ("int8", 0.0)):
        limit = Threshold(value, value, 20, 0.05, "2025-01-01")
        bundle = bundle.with_thresholds(dict.fromkeys(bundle.class_names, limit), precision)
    code, out, err = run(bundle.path, "--backend", "onnxruntime", "--precision", "int8", "--frames", 1)
    assert code == 1 and "normal -> anomalous" in out and "the decision changes on" in err


def test_frames_of_a_folder_and_of_a_camera(equal: Bundle, tmp_path: Path) -> None:
    root = write_parts(tmp_path / "parts", train=1, validation=1, good=1, defective=1)
    args = (equal.path, "--backend", "onnxruntime", "--precision", "int8", "--threads", 1, "--json")
    code, out, _ = run(*args, "--data", root, "--frames", 3)
    classes = [p["class_name"] for p in json.loads(out)["parts"]]
    assert code == 0 and len(classes) == 3 and set(classes) == {"hex_nut", "cookie"}
    code, out, _ = run(*args, "--camera", f"folder:{root}", "--frames", 2)
    assert code == 0 and len(json.loads(out)["parts"]) == 2


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("--backend", "onnxruntime"), "onnxruntime fp32 against itself; expected another backend or precision"),
        (("--backend", "tpu"), "unknown backend 'tpu'"),
        (("--backend", "onnxruntime", "--precision", "fp4"), "unknown precision 'fp4'"),
        (("--backend", "openvino", "--bisect", "head"), "--bisect head; expected auto, rgb, points, tokens, score"),
        (("--backend", "openvino", "--data", "x", "--camera", "y"), "--data and --camera; expected one of them"),
        (("--backend", "openvino", "--variant", "small"), "has no variant 'small'"),
        (("--backend", "openvino", "--data", "nowhere"), "nowhere"),
    ],
)
def test_what_is_refused(equal: Bundle, args: tuple[str, ...], text: str) -> None:
    code, _, err = run(equal.path, *args)
    assert code == 1 and text in err and len([x for x in err.splitlines() if x.startswith("error")]) == 1


def test_no_part_in_view(equal: Bundle) -> None:
    from tests.training.tiny import make_frame

    with pytest.raises(EdgeAdError, match="no frame could be inspected: cookie/-1"):
        sides = Side("onnxruntime", "int8"), Side("onnxruntime", "fp32")
        verify(equal, *sides, [(make_frame("cookie", -1), "cookie")], 1)


def test_bisection_finds_the_node_among_many(tmp_path: Path) -> None:
    """Every place of a chain of 40 layers: the first tensor that differs is exactly the one that was changed."""
    data, _ = mlp(3, (4,) * 41)
    (tmp_path / "a.onnx").write_bytes(data)
    x = {"x": np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32) + 3}
    run_it = runner("onnxruntime", "fp32", "rgb", (1, 1, 1))
    for layer in (0, 7, 39):
        model = onnx.load_from_string(data)
        for tensor in model.graph.initializer:
            if tensor.name == f"w{layer}":
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.5), tensor.name))
        (tmp_path / "b.onnx").write_bytes(model.SerializeToString())
        found = bisect("rgb", (tmp_path / "b.onnx", tmp_path / "a.onnx"), (run_it, run_it), x, 1e-4)
        reference = run_it(tmp_path / "a.onnx", x)["y"]
        if np.abs(reference).max() == 0:
            continue
        assert found.first is not None and found.first.node == f"linear{layer}"
        assert len(found.probes) < found.tensors or layer == 39
    same = bisect("rgb", (tmp_path / "a.onnx", tmp_path / "a.onnx"), (run_it, run_it), x, 1e-4)
    assert same.first is None and len(same.probes) == 8


def test_bisection_needs_onnx(other: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = other.golden()[0]
    sides = Side("onnxruntime", "int8"), Side("onnxruntime", "fp32")
    report = verify(other, *sides, [(golden.frame, golden.class_name)], 1)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(EdgeAdError, match=r"'onnx' is not installed.*edge-ad\[export\]"):
        bisect_graph(other, report, "rgb")


def test_measures() -> None:
    a = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert correlation(a, a) == pytest.approx(1) and correlation(-a, a) == pytest.approx(-1)
    assert correlation(np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32)) == 1
    assert correlation(np.full((3, 4), np.nan, np.float32), a) == 0
    b = a.copy()
    b[1, 2] += 1.1
    assert worst_pixel(b, a) == (pytest.approx(0.1), (1, 2))
    assert worst_pixel(np.where(a == 5, np.nan, a).astype(np.float32), a)[0] == float("inf")
    assert relative_error(a, a) == 0 and relative_error(a[:2], a) == float("inf")
    assert relative_error(2 * a - a.mean(), a) == pytest.approx(1)
    assert overlap(a > 3, a > 5) == (6, 8)


def test_a_graph_may_differ_by_no_more_than_the_gate_allows(equal: Bundle, tmp_path: Path) -> None:
    """What INT8 costs each graph stands in the bundle; the gate's limit follows it, and so does verify's."""
    noted = with_int8(equal.path, tmp_path / "noted", 1.1)
    args = ("--backend", "onnxruntime", "--precision", "int8", "--threads", 1, "--frames", 2)
    assert "graph rgb is the first" not in run(noted.path, *args)[2], "within the table's 0.3"
    write_cost(noted, "int8", dict.fromkeys(("rgb", "points", "tokens", "score"), 0.001))
    code, _, err = run(noted.path, *args)
    assert code == 1 and "graph rgb is the first that differs" in err and "graph rgb within 1.5e-03" in err
