"""Building engines: real TensorRT-RTX plans without a GPU, whole or not at all, and everything that is refused."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from onnx import helper

from edge_ad.bundle import Bundle, GraphSpec, TensorSpec, add_files, open_bundle, pack
from edge_ad.engines import build, build_engines, gate, read_sidecar, trt
from edge_ad.engines.targets import parse_capability
from edge_ad.errors import EdgeAdError
from edge_ad.files import sha256
from edge_ad.runtime import cuda
from tests.bundles import mlp, model_bytes, tiny_bundle
from tests.killed import run_until_killed

pytestmark = pytest.mark.usefixtures("no_kernels")

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="the package tensorrt_rtx is not installed"
)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path / "tiny")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "find_device", lambda: None)


@needs_rtx
def test_real_plans_without_a_gpu(bundle: Bundle, no_gpu: None) -> None:
    said: list[str] = []
    built = build_engines(bundle, "tensorrt-rtx", progress=said.append)
    folder = bundle.path / "engines/tensorrt-rtx-fp32-sm86"
    assert said[0].startswith("no GPU here: building for compute capability 8.6")
    assert [b.graph for b in built] == ["rgb", "points", "tokens", "score"]
    assert sorted(p.name for p in folder.iterdir()) == sorted([*(b.path.name for b in built), "sidecar.json"])
    sidecar = read_sidecar(folder)
    assert sidecar.key == folder.name and sidecar.capabilities == ("8.6",) and sidecar.backend == "tensorrt-rtx"
    assert "TF32" not in sidecar.flags
    for b in built:
        record = sidecar.plans[b.graph]
        assert b.path.stat().st_size == b.bytes == record.bytes > 1000
        assert record.sha256 == sha256(b.path)
        assert record.source_sha256 == sha256(bundle.graph_path(b.graph))
        assert [t.name for t in (*record.inputs, *record.outputs)] == ["x", "y"]
    assert sidecar.plans["rgb"].inputs[0] == TensorSpec("x", (9, 6), "float32")
    assert sidecar.plans["score"].inputs[0].shape == ("d0", 8)
    assert sidecar.plans["score"].profile == {"x": [[1, 8], [64, 8], [512, 8]]}
    Bundle.open(bundle.path)
    with pytest.raises(EdgeAdError, match="was built before; pass --force"):
        build_engines(bundle, "tensorrt-rtx")


@needs_rtx
def test_targets_name_the_folder(bundle: Bundle, no_gpu: None) -> None:
    build_engines(bundle, "tensorrt-rtx", compute_capability=("12.0", "SM89"), workspace_mb=64)
    build_engines(bundle, "tensorrt-rtx", compute_capability=("portable",))
    names = {p.name for p in (bundle.path / "engines").iterdir()}
    assert names == {"tensorrt-rtx-fp32-sm89-sm120", "tensorrt-rtx-fp32-portable"}
    assert read_sidecar(bundle.path / "engines/tensorrt-rtx-fp32-sm89-sm120").workspace_mb == 64


@needs_rtx
@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (("8.7",), r"no engine for compute capability 8.7; expected one of .*8.6.*--backend tensorrt"),
        (("fast",), r"compute capability 'fast'; expected a number like 8.6"),
        (("portable", "8.6"), r"'portable' alone"),
    ],
)
def test_targets_that_are_refused(bundle: Bundle, no_gpu: None, asked: tuple[str, ...], text: str) -> None:
    with pytest.raises(EdgeAdError, match=text):
        build_engines(bundle, "tensorrt-rtx", compute_capability=asked)
    assert not list((bundle.path / "engines").glob("*") if (bundle.path / "engines").exists() else [])


@needs_rtx
def test_a_graph_that_does_not_parse_names_its_node(tmp_path: Path, no_gpu: None) -> None:
    ins, outs = (TensorSpec("x", (4,), "float32"),), (TensorSpec("y", (4,), "float32"),)
    node = helper.make_node("NoSuchOperator", ["x"], ["y"], name="the_culprit", domain="my.domain")
    graph = helper.make_graph(
        [node], "g", *[[helper.make_tensor_value_info(t.name, 1, t.shape)] for t in (ins[0], outs[0])]
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("my.domain", 1)]
    data = helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()
    spec = GraphSpec("onnx/rgb.onnx", ins, outs)
    bundle = tiny_bundle(tmp_path / "b", graphs={"rgb": spec}, extra_files={"onnx/rgb.onnx": data})
    with pytest.raises(EdgeAdError, match="the_culprit.*NoSuchOperator") as e:
        build_engines(bundle, "tensorrt-rtx")
    assert "\n" not in str(e.value)
    assert not list((bundle.path / "engines").iterdir())


@needs_rtx
def test_other_precisions_once_the_bundle_holds_them(bundle: Bundle, no_gpu: None) -> None:
    with pytest.raises(EdgeAdError, match="has no fp16 graph 'rgb'; expected .*fp32; use --precision fp32"):
        build_engines(bundle, "tensorrt-rtx", "fp16")
    files = {f"onnx/fp16/{g}.onnx": bundle.graph_path(g).read_bytes() for g in bundle.manifest.graphs}
    built = build_engines(add_files(bundle, files), "tensorrt-rtx", "fp16")
    assert {b.path.parent.name for b in built} == {"tensorrt-rtx-fp16-sm86"}


def test_onnxruntime_is_tried_and_noted(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Bundle] = []
    monkeypatch.setattr(
        gate, "check_reference", lambda bundle, sessions: asked.append(bundle)
    )  # these are no real graphs
    built = build_engines(bundle, "onnxruntime")
    assert [b.graph for b in built] == ["rgb", "points", "tokens", "score"] and asked == [bundle]
    assert all(b.path == bundle.graph_path(b.graph) for b in built)
    sidecar = read_sidecar(bundle.path / "engines/onnxruntime-fp32")
    assert sidecar.capabilities == () and sidecar.plans["rgb"].file == ""
    with pytest.raises(EdgeAdError, match="pass --force"):
        build_engines(bundle, "onnxruntime")
    build_engines(bundle, "onnxruntime", force=True)


def test_a_graph_that_gives_nan_is_refused(tmp_path: Path) -> None:
    ins, outs = (TensorSpec("x", (64,), "float32"),), (TensorSpec("y", (64,), "float32"),)
    data = model_bytes([helper.make_node("Log", ["x"], ["y"])], [], ins, outs)
    spec = GraphSpec("onnx/rgb.onnx", ins, outs)
    bundle = tiny_bundle(tmp_path / "b", graphs={"rgb": spec}, extra_files={"onnx/rgb.onnx": data})
    with pytest.raises(EdgeAdError, match="rgb: output 'y' of random input is not finite"):
        build_engines(bundle, "onnxruntime")
    assert not list((bundle.path / "engines").iterdir())


@pytest.mark.parametrize(
    ("rows", "text"), [({"min": 4, "opt": 2, "max": 8}, "1 <= min <= opt <= max"), ({"min": 1}, "min, opt and max")]
)
def test_rows_that_make_no_profile(tmp_path: Path, rows: dict[str, int], text: str) -> None:
    data, spec = mlp("rows", (3, 2))
    spec = GraphSpec("onnx/score.onnx", spec.inputs, spec.outputs, {"rows": rows})
    bundle = tiny_bundle(tmp_path / "b", graphs={"score": spec}, extra_files={"onnx/score.onnx": data})
    with pytest.raises(EdgeAdError, match=text):
        build_engines(bundle, "tensorrt-rtx")


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"backend": "tpu"}, "unknown backend 'tpu'; expected one of onnxruntime, tensorrt-rtx, tensorrt"),
        ({"backend": "onnxruntime", "compute_capability": ("8.6",)}, "tensorrt-rtx only"),
        ({"backend": "onnxruntime", "precision": "fp4"}, "expected one of fp32, fp16, int8"),
        ({"backend": "tensorrt-rtx", "workspace_mb": 0}, "1 to 1048576 MB"),
        ({"backend": "tensorrt-rtx", "workspace_mb": 10**14}, "1 to 1048576 MB"),
    ],
)
def test_arguments_that_are_refused(bundle: Bundle, kwargs: dict[str, Any], text: str) -> None:
    with pytest.raises(EdgeAdError, match=text):
        build_engines(bundle, **kwargs)
    assert not (bundle.path / "engines").exists()


def test_a_missing_package_is_named(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    for backend, package in trt.PACKAGES.items():
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(EdgeAdError, match=rf"'{package}' is not installed.*edge-ad\[{backend}\]"):
            build_engines(bundle, backend)


def test_tensorrt_needs_the_gpu_that_runs_it(bundle: Bundle, no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", types.SimpleNamespace(__version__="10.3.0"))  # type: ignore[arg-type]
    with pytest.raises(EdgeAdError, match="no CUDA device: TensorRT engines are built and run on an NVIDIA GPU"):
        build_engines(bundle, "tensorrt")
    monkeypatch.setattr(cuda, "find_device", lambda: cuda.Device("Orin", (8, 7), 8 << 30))
    with pytest.raises(EdgeAdError, match="8.6 asked for; expected 8.7, this device's .Orin."):
        build_engines(bundle, "tensorrt", compute_capability=("8.6",))


def test_known_bad_versions_are_warned_of(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", types.SimpleNamespace(__version__="10.3.0"))  # type: ignore[arg-type]
    monkeypatch.setattr(cuda, "find_device", lambda: cuda.Device("Orin", (8, 7), 8 << 30))
    monkeypatch.setattr(build.trt, "build_plan", lambda *a, **k: trt.Plan(b"plan", (), (), (), {}))
    said: list[str] = []
    build_engines(bundle, "tensorrt", progress=said.append)
    assert any(s.startswith("warning: TensorRT 10.3.0 is reported to give wrong results") for s in said)
    assert read_sidecar(bundle.path / "engines/tensorrt-fp32-sm87").workspace_mb == 1024


@pytest.mark.parametrize(
    ("version", "capability", "count"),
    [
        ("10.2.0", (8, 7), 0),
        ("10.3.0.26", (8, 7), 1),
        ("10.4.0", None, 1),
        ("10.5.0", (8, 7), 0),
        ("10.13.3.9", (8, 7), 1),
        ("10.13.3.9", (11, 0), 0),
        ("10.13.2", (8, 7), 0),
        ("10.16.1.11", (12, 0), 1),
        ("10.3.0", (12, 0), 2),
        ("10.16.2", (12, 0), 0),
        ("11.4.1", (12, 0), 0),
        ("11.0.0rc1", (8, 7), 0),
    ],
)
def test_table_of_known_bad_versions(version: str, capability: tuple[int, int] | None, count: int) -> None:
    assert len(trt.known_faults("tensorrt", version, capability)) == count
    assert trt.known_faults("tensorrt-rtx", version, capability) == ()


@pytest.mark.parametrize(
    ("text", "value"), [("8.6", (8, 6)), ("86", (8, 6)), ("SM120", (12, 0)), ("12.1", (12, 1)), ("sm75", (7, 5))]
)
def test_compute_capabilities(text: str, value: tuple[int, int]) -> None:
    assert parse_capability(text) == value


@needs_rtx
def test_a_kill_while_building_leaves_no_engine(bundle: Bundle, tmp_path: Path, no_gpu: None) -> None:
    script = """
        import sys
        from edge_ad.bundle import open_bundle
        from edge_ad.engines import build
        build.add_kernels = lambda *args: None
        real, calls = build.trt.build_plan, []
        def second_kills(*args, **kwargs):
            calls.append(1)
            return kill() if len(calls) == 2 else real(*args, **kwargs)
        build.trt.build_plan = second_kills
        build.build_engines(open_bundle(sys.argv[1]), "tensorrt-rtx", compute_capability=("8.6",))
    """
    run_until_killed(script, bundle.path)
    assert not (bundle.path / "engines/tensorrt-rtx-fp32-sm86").exists()
    build_engines(open_bundle(bundle.path), "tensorrt-rtx")
    assert len(read_sidecar(bundle.path / "engines/tensorrt-rtx-fp32-sm86").plans) == 4


def test_command(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_ad.cli.build_engine import command

    monkeypatch.setattr(gate, "check_reference", lambda bundle, say: None)  # these are no real graphs
    shown = CliRunner().invoke(command, [str(bundle.path)])
    assert shown.exit_code == 0 and shown.stdout.splitlines()[0].split() == ["graph", "size", "MB", "seconds"]
    again = CliRunner().invoke(command, [str(bundle.path)])
    assert again.exit_code == 1 and "pass --force" in again.stderr and "Traceback" not in again.output
    as_json = CliRunner().invoke(command, [str(bundle.path), "--force", "--json"])
    assert [e["graph"] for e in json.loads(as_json.stdout)["engines"]] == ["rgb", "points", "tokens", "score"]
    tar = pack(bundle, tmp_path / "b.tar")
    assert CliRunner().invoke(command, [str(tar)]).exit_code == 0
    assert CliRunner().invoke(command, [str(tmp_path / "none")]).exit_code == 1
