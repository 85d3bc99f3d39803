"""The builder and the runner through the doubles of TensorRT: every option is set, every quiet failure speaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_ad.bundle import Bundle, GraphSpec, TensorSpec, open_bundle
from edge_ad.engines import build_engines, read_sidecar, trt
from edge_ad.engines.runner import Engine, preflight
from edge_ad.engines.targets import default_timing_cache
from edge_ad.engines.trt import BuildOptions, build_plan
from edge_ad.errors import EdgeAdError
from edge_ad.runtime.backends import load_session
from tests.bundles import mlp, model_bytes, tiny_bundle
from tests.engines import doubles, fake_gpu

pytestmark = pytest.mark.usefixtures("no_kernels")

VERSION = "10.13.0.35"


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tiny_bundle(tmp_path / "tiny")


@pytest.fixture
def world(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> doubles.World:
    _, module = fake_gpu.install(monkeypatch, bundle.path / "onnx", set(), "tensorrt", VERSION)
    return module.world  # type: ignore[no-any-return]


def test_flags_profile_and_io(bundle: Bundle, world: doubles.World) -> None:
    plan = build_plan("tensorrt", bundle.graph_path("score"), BuildOptions(rows=(1, 64, 512), workspace_mb=8))
    assert plan.flags == () and plan.profile == {"x": [[1, 8], [64, 8], [512, 8]]}
    assert plan.inputs == (TensorSpec("x", ("d0", 8), "float32"),)
    streamed = build_plan("tensorrt", bundle.graph_path("rgb"), BuildOptions(weight_streaming=True))
    assert streamed.flags == ("WEIGHT_STREAMING",) and streamed.profile == {}


def test_a_batch_dimension_has_its_own_bounds(tmp_path: Path, world: doubles.World) -> None:
    data, _ = mlp("batch", (3, 2))
    (tmp_path / "g.onnx").write_bytes(data)
    plan = build_plan("tensorrt", tmp_path / "g.onnx", BuildOptions(batch=(1, 1, 4)))
    assert plan.profile == {"x": [[1, 3], [1, 3], [4, 3]]}


def test_batch_of_a_bundle(tmp_path: Path, bundle: Bundle, world: doubles.World) -> None:
    with pytest.raises(EdgeAdError, match="a batch of 4; expected 1: the graphs of bundle .* take one part a run"):
        build_engines(bundle, "tensorrt", batch=4)
    with pytest.raises(EdgeAdError, match="a batch of 0; expected at least 1"):
        build_engines(bundle, "tensorrt", batch=0)


QUIET: dict[str, str] = {
    "create_network": "gave no network",
    "create_builder_config": "gave no network",
    "set_memory_pool_limit": "keeps a workspace of 16 MB; expected 8 MB",
    "set_flag": "refused to set WEIGHT_STREAMING to True",
    "set_shape": "refused the shapes .* of input 'x'",
    "add_optimization_profile": "refused the shapes .*; expected min <= opt <= max",
    "build_serialized_network": "built no engine from .*: no kernel fits",
    "parse_from_file": r"node '/blocks/3/Mish' \(Mish\): no such operator",
}


@pytest.mark.parametrize("call", QUIET)
def test_every_quiet_failure_of_the_builder_speaks(bundle: Bundle, world: doubles.World, call: str) -> None:
    world.fails.add(call)
    world.errors.append(("/blocks/3/Mish", "Mish", "no such\noperator"))
    with pytest.raises(EdgeAdError, match=QUIET[call]) as e:
        build_plan("tensorrt", bundle.graph_path("score"), BuildOptions(workspace_mb=8, weight_streaming=True))
    assert "\n" not in str(e.value)


def test_the_timing_cache_is_read_written_and_of_this_device(
    bundle: Bundle, world: doubles.World, tmp_path: Path
) -> None:
    path = tmp_path / "cache" / "t.cache"
    said: list[str] = []
    for _ in range(2):
        build_plan("tensorrt", bundle.graph_path("rgb"), BuildOptions(timing_cache=path), progress=said.append)
    assert world.timing == [b"", b"timed "] and path.read_bytes() == b"timed timed "
    path.write_bytes(b"other device")
    build_plan("tensorrt", bundle.graph_path("rgb"), BuildOptions(timing_cache=path), progress=said.append)
    assert any("is not this device's: it is made anew" in s for s in said) and path.read_bytes() == b"timed "
    path.unlink()
    path.mkdir()  # nothing can be written there
    with pytest.raises((EdgeAdError, OSError)):
        path.write_bytes(b"")
    assert build_plan("tensorrt", bundle.graph_path("rgb"), BuildOptions(timing_cache=path), progress=said.append).data
    assert any(s.startswith("warning: the timing cache was not kept") for s in said)


def test_default_place_of_the_timing_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert default_timing_cache("10.3.0", [(8, 7)]) == Path("/c/edge-ad/timing/tensorrt-10.3.0-sm87.cache")


def test_only_what_changed_is_built_again(
    bundle: Bundle, world: doubles.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_ad.bundle import add_files
    from edge_ad.engines import build

    monkeypatch.setattr(build, "_gate", lambda *a: None)  # its graphs are no detector's
    build_engines(bundle, "tensorrt")
    with pytest.raises(EdgeAdError, match="was built before; pass --force"):
        build_engines(bundle, "tensorrt")
    changed = add_files(bundle, {"onnx/tokens.onnx": mlp(9, (4, 8), seed=99)[0]})
    built = build_engines(changed, "tensorrt")
    assert {b.graph: b.kept for b in built} == {"rgb": True, "points": True, "tokens": False, "score": True}
    folder = bundle.path / "engines/tensorrt-fp32-sm86"
    sidecar = read_sidecar(folder)
    assert sidecar.device == "Fake GPU" and sidecar.workspace_mb == 1024
    (folder / sidecar.plans["rgb"].file).write_bytes(b"damaged")
    assert [b.graph for b in build_engines(changed, "tensorrt") if not b.kept] == ["rgb"]
    assert not any(b.kept for b in build_engines(changed, "tensorrt", workspace_mb=64))
    assert not any(b.kept for b in build_engines(changed, "tensorrt", workspace_mb=64, force=True))


def test_variants_have_engines_of_their_own(bundle: Bundle) -> None:
    from edge_ad.engines.identity import build_command, engine_key

    assert engine_key("tensorrt", "fp16", ("8.7",), "small") == "tensorrt-fp16-sm87+small"
    import dataclasses

    other = dataclasses.replace(bundle, variant="small")
    assert "--variant small --force" in build_command("tensorrt", "fp16", other, force=True)


def test_preflight_says_what_is_needed() -> None:
    preflight("engine e", 100 << 20, 50 << 20, 200 << 20, 8 << 30)
    with pytest.raises(EdgeAdError, match=r"needs 182 MB .*weights 100, .*workspace 50, reserve 32.*180 MB .*of 8192"):
        preflight("engine e", 100 << 20, 50 << 20, 180 << 20, 8 << 30)


def test_memory_is_checked_before_and_after_the_weights(bundle: Bundle, world: doubles.World) -> None:
    path = str(bundle.graph_path("rgb")).encode()
    with pytest.raises(EdgeAdError, match="needs 32 MB of GPU memory"):
        Engine("tensorrt", path, "engine e", lambda: (1 << 20, 8 << 30))
    assert world.loaded == [], "nothing is deserialised that cannot fit"
    world.work_bytes = 4 << 30
    with pytest.raises(EdgeAdError, match="activations and workspace 4096"):
        Engine("tensorrt", path, "engine e", lambda: (3 << 30, 8 << 30))
    world.work_bytes = 1 << 20
    assert Engine("tensorrt", path, "engine e", lambda: (3 << 30, 8 << 30)).work_bytes == 1 << 20


def test_weights_are_streamed_where_they_do_not_fit(bundle: Bundle, world: doubles.World) -> None:
    path = str(bundle.graph_path("rgb")).encode()
    world.streamable = 500 << 20
    engine = Engine("tensorrt", path, "engine e", lambda: (100 << 20, 8 << 30), streaming=True)
    assert engine._engine.weight_streaming_budget_v2 == (100 - 1 - 32) << 20
    roomy = Engine("tensorrt", path, "engine e", lambda: (4 << 30, 8 << 30), streaming=True)
    assert roomy._engine.weight_streaming_budget_v2 == 500 << 20
    world.fails.add("weight_streaming_budget_v2")
    with pytest.raises(EdgeAdError, match="no weights can be streamed"):
        Engine("tensorrt", path, "engine e", lambda: (100 << 20, 8 << 30), streaming=True)


def test_integer_and_half_tensors_travel_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    from onnx import TensorProto, helper

    ins = (TensorSpec("i", (1,), "int64"), TensorSpec("x", (4,), "float16"))
    outs = (TensorSpec("y", (4,), "float16"),)
    nodes = [helper.make_node("Cast", ["i"], ["c"], to=TensorProto.FLOAT16), helper.make_node("Add", ["x", "c"], ["y"])]
    spec = GraphSpec("onnx/rgb.onnx", ins, outs)
    data = model_bytes(nodes, [], ins, outs)
    tiny_bundle(tmp_path / "b", graphs={"rgb": spec}, extra_files={"onnx/rgb.onnx": data})
    bundle = open_bundle(tmp_path / "b")
    fake_gpu.install(monkeypatch, bundle.path / "onnx", set(), "tensorrt", VERSION)
    from edge_ad.engines import build

    monkeypatch.setattr(build, "_gate", lambda *a: None)
    build_engines(bundle, "tensorrt")
    session = load_session(bundle, "rgb", "tensorrt")
    x = np.arange(4, dtype=np.float16)
    out = session.run({"i": np.array([3], np.int64), "x": x})["y"]
    assert out.dtype == np.float16
    np.testing.assert_array_equal(out, x + 3)


@pytest.mark.parametrize("capability", [(8, 6), (8, 9), (12, 0)])
def test_real_rtx_builds_for_every_target_and_streams_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]
) -> None:
    pytest.importorskip("tensorrt_rtx")
    data, _ = mlp("rows", (8, 256, 3))
    (tmp_path / "g.onnx").write_bytes(data)
    options: Any = {"rows": (1, 64, 512), "capabilities": (capability,), "workspace_mb": 64}
    plain = build_plan("tensorrt-rtx", tmp_path / "g.onnx", BuildOptions(**options))
    streamed = build_plan("tensorrt-rtx", tmp_path / "g.onnx", BuildOptions(**options, weight_streaming=True))
    assert "WEIGHT_STREAMING" in streamed.flags and "WEIGHT_STREAMING" not in plain.flags
    assert len(plain.data) > 1000 and trt.version(trt.load_module("tensorrt-rtx"))


def test_stubs_left_behind_are_no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A namespace package (type stubs, or what an uninstalled wheel left) is not taken for the library."""
    import sys
    import types

    monkeypatch.setitem(sys.modules, "tensorrt", types.ModuleType("tensorrt"))
    with pytest.raises(EdgeAdError, match=r"'tensorrt' is not installed.*edge-ad\[tensorrt\]"):
        trt.load_module("tensorrt")
