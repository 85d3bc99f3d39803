"""Backends: results against NumPy, and refusals in one line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edge_ad.bundle import Bundle, GraphSpec, TensorSpec
from edge_ad.errors import EdgeAdError
from edge_ad.runtime import cuda
from edge_ad.runtime.backends import BACKENDS, load_session
from tests.bundles import mlp, tiny_bundle
from tests.engines import fake_gpu
from tests.engines.plans import write_engine


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    bundle = tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")
    write_engine(bundle, fake_gpu.VERSION, ("8.6",))
    return bundle


def by_hand(path: Path, x: np.ndarray) -> np.ndarray:
    """The MLP of ``path`` in float64 NumPy."""
    weights = [numpy_helper.to_array(w).astype(np.float64) for w in onnx.load(path).graph.initializer]
    for i, w in enumerate(weights):
        x = x @ w
        x = np.maximum(x, 0) if i < len(weights) - 1 else x
    return x


@pytest.mark.parametrize(("graph", "rows"), [("rgb", 9), ("score", 1), ("score", 137)])
@pytest.mark.parametrize("threads", [1, None])
def test_onnxruntime_against_numpy(bundle: Bundle, graph: str, rows: int, threads: int | None) -> None:
    session = load_session(bundle, graph, threads=threads)
    assert [t.name for t in session.inputs] == ["x"] and [t.name for t in session.outputs] == ["y"]
    x = np.random.default_rng(1).standard_normal((rows, int(session.inputs[0].shape[1]))).astype(np.float32)
    y = session.run({"x": x})["y"]
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, by_hand(bundle.graph_path(graph), x), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(session.run({"x": np.asfortranarray(x)})["y"], y)


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({}, "inputs ; expected x"),
        ({"z": np.zeros((9, 6), np.float32)}, "inputs z; expected x"),
        ({"x": np.zeros((9, 6))}, r"float64 \(9, 6\); expected float32 \(9, 6\)"),
        ({"x": np.zeros((8, 6), np.float32)}, r"float32 \(8, 6\); expected float32 \(9, 6\)"),
        ({"x": np.zeros((54,), np.float32)}, r"\(54,\)"),
    ],
)
def test_inputs_that_do_not_fit(bundle: Bundle, inputs: dict[str, np.ndarray], text: str) -> None:
    with pytest.raises(EdgeAdError, match=text):
        load_session(bundle, "rgb").run(inputs)


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"backend": "tpu"}, f"unknown backend 'tpu'; expected one of {', '.join(BACKENDS)}"),
        ({"graph": "nope"}, "no graph 'nope'; expected one of rgb, points, tokens, score"),
        ({"precision": "fp16"}, "in float32; expected fp32 or int8"),
        ({"precision": "int8"}, "no int8 graph 'rgb'.*use --precision fp32"),
        ({"threads": 0}, "0 threads; expected at least 1"),
    ],
)
def test_sessions_that_are_refused(bundle: Bundle, kwargs: dict[str, Any], text: str) -> None:
    with pytest.raises(EdgeAdError, match=text):
        load_session(bundle, **{"graph": "rgb", **kwargs})


def test_onnxruntime_is_missing(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EdgeAdError, match=r"'onnxruntime' is not installed.*pip install"):
        load_session(bundle, "rgb")


def test_damaged_graph_is_one_line(tmp_path: Path) -> None:
    broken = tiny_bundle(tmp_path / "b", extra_files={"onnx/rgb.onnx": b"not a graph"})
    with pytest.raises(EdgeAdError, match="rgb: onnxruntime cannot load rgb.onnx .*edge-ad export") as e:
        load_session(broken, "rgb")
    assert "\n" not in str(e.value)


def test_graph_that_its_manifest_does_not_describe(tmp_path: Path) -> None:
    data, spec = mlp(9, (6, 4))
    wrong = GraphSpec("onnx/rgb.onnx", (TensorSpec("image", (9, 6), "float32"),), spec.outputs)
    bundle = tiny_bundle(tmp_path / "b", graphs={"rgb": wrong}, extra_files={"onnx/rgb.onnx": data})
    with pytest.raises(EdgeAdError, match="has inputs x; expected image, as its manifest says"):
        load_session(bundle, "rgb")


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_no_device(bundle: Bundle, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "find_device", lambda: None)
    with pytest.raises(EdgeAdError) as e:
        load_session(bundle, "rgb", backend)
    expected = "no CUDA device: TensorRT engines run on an NVIDIA GPU; use --backend onnxruntime here"
    assert str(e.value) == expected


def test_no_driver_is_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_LIBRARIES", ("libdoes-not-exist.so.1",))
    assert cuda.find_device() is None


def test_pycuda_is_missing(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu.install(monkeypatch, bundle.path / "onnx", set())
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(EdgeAdError, match=r"'pycuda' is not installed.*edge-ad\[cuda\]"):
        load_session(bundle, "rgb", "tensorrt-rtx")


def test_plan_session_moves_the_right_bytes(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    driver, _ = fake_gpu.install(monkeypatch, bundle.path / "onnx", set())
    session = load_session(bundle, "score", "tensorrt-rtx")
    cpu = load_session(bundle, "score")
    rng = np.random.default_rng(0)
    for rows in (5, 300, 1, 17):  # grows once, then reuses the buffers
        x = rng.standard_normal((rows, 8)).astype(np.float32)
        np.testing.assert_array_equal(session.run({"x": np.asfortranarray(x)})["y"], cpu.run({"x": x})["y"])
    assert driver.depth == 0 and driver.allocated == 2
    with pytest.raises(EdgeAdError, match=r"float32 \(2, 7\)"):
        session.run({"x": np.zeros((2, 7), np.float32)})


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("deserialize_cuda_engine", "rgb.plan of bundle .* cannot be loaded: Version tag does not match .*--force"),
        ("create_execution_context", "no memory to run in"),
        ("set_input_shape", r"input 'x' of shape \(9, 6\)"),
        ("set_tensor_address", "no address could be set for 'x'"),
        ("execute_async_v3", "failed to run"),
    ],
)
def test_every_quiet_failure_of_tensorrt_speaks(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, call: str, text: str
) -> None:
    driver, _ = fake_gpu.install(monkeypatch, bundle.path / "onnx", {call})
    with pytest.raises(EdgeAdError, match=text) as e:
        load_session(bundle, "rgb", "tensorrt-rtx").run({"x": np.zeros((9, 6), np.float32)})
    assert driver.depth == 0 and "\n" not in str(e.value)


def test_a_full_gpu_is_one_line(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    driver, _ = fake_gpu.install(monkeypatch, bundle.path / "onnx", set())
    session = load_session(bundle, "rgb", "tensorrt-rtx")
    driver.limit = 8
    with pytest.raises(EdgeAdError, match="no GPU memory for 0 MB .3072 of 8192 MB are free"):
        session.run({"x": np.zeros((9, 6), np.float32)})


@pytest.mark.parametrize("target", ["plan", "sidecar"])
def test_tampering_is_met_before_deserialising(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    bundle = tiny_bundle(tmp_path / "b")
    folder = write_engine(bundle, fake_gpu.VERSION, ("8.6",))
    _, module = fake_gpu.install(monkeypatch, bundle.path / "onnx", set())
    if target == "plan":
        (folder / "rgb.plan").write_bytes(b"points")
    else:
        sidecar = folder / "sidecar.json"
        sidecar.write_text(sidecar.read_text().replace('"version": "1.7', '"version": "1.8'))
    with pytest.raises(EdgeAdError, match="rgb.plan has 6 bytes; expected 3|was built by tensorrt-rtx 1.8"):
        load_session(bundle, "rgb", "tensorrt-rtx")
    assert module.world.loaded == []


@pytest.mark.gpu
@pytest.mark.skipif(cuda.find_device() is None, reason="no CUDA device")
def test_a_real_copy_there_and_back() -> None:
    pytest.importorskip("pycuda")
    context = cuda.CudaContext()
    x = np.random.default_rng(0).random((31, 7), dtype=np.float32)
    with context.current():
        buffer = context.buffer()
        address = buffer.reserve(x.nbytes)
        context.upload(address, x)
        back = context.download(x.shape, x.dtype, address)
        context.synchronize()
        buffer.free()
    np.testing.assert_array_equal(back, x)
