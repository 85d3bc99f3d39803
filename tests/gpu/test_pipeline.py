"""The device pipeline on a real GPU: the same Results as on the CPU.

First with the networks on the host (every kernel, stream, event and graph is the GPU's), then with TensorRT's engines.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from edge_ad.bundle import Bundle, TensorSpec
from edge_ad.errors import EdgeAdError
from edge_ad.frame import Frame
from edge_ad.runtime.detector import Detector
from edge_ad.runtime.device.detector import DEVICE_BACKENDS, DeviceDetector
from edge_ad.runtime.device.options import DeviceOptions
from tests.runtime.device.same import assert_same
from tests.training.tiny import make_frame

pytestmark = pytest.mark.gpu
BUNDLE = "EDGE_AD_GPU_BUNDLE"


class HostNetwork:
    """A network on the host between two copies: for tests of everything else."""

    def __init__(self, driver: Any, path: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self._driver, self.inputs, self.outputs = driver, inputs, outputs
        self._in: dict[str, tuple[tuple[int, ...], int]] = {}
        self._out: dict[str, int] = {}

    def set_input(self, name: str, shape: tuple[int, ...], address: int) -> None:
        self._in[name] = shape, address

    def output_shape(self, name: str) -> tuple[int, ...]:
        spec = next(t for t in self.outputs if t.name == name)
        return tuple(next(iter(self._in.values()))[0][0] if isinstance(d, str) else d for d in spec.shape)

    def set_output(self, name: str, address: int) -> None:
        self._out[name] = address

    def execute(self, stream: int) -> None:
        cuda = self._driver.cuda
        cuda.Context.synchronize()
        feed = {}
        for spec in self.inputs:
            shape, address = self._in[spec.name]
            feed[spec.name] = np.empty(shape, spec.dtype)
            cuda.memcpy_dtoh(feed[spec.name], address)
        for spec, value in zip(self.outputs, self._session.run([t.name for t in self.outputs], feed)):
            cuda.memcpy_htod(self._out[spec.name], np.ascontiguousarray(value))


@pytest.fixture(scope="module")
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A copy of the bundle named by ``EDGE_AD_GPU_BUNDLE``, else the tiny one, which needs torch to be made."""
    given = os.environ.get(BUNDLE)
    if not given:
        pytest.importorskip("torch", reason=f"no torch to make a bundle with; name one: {BUNDLE}=FOLDER")
        given = str(request.getfixturevalue("tiny_export"))
    path = tmp_path_factory.mktemp("gpu") / "bundle"
    shutil.copytree(given, path, ignore=shutil.ignore_patterns("engines"))
    return Bundle.open(path)


@pytest.fixture(scope="module")
def frames(bundle: Bundle) -> list[Frame]:
    golden = [g.frame for g in bundle.golden()]
    return golden or [make_frame("cookie", 3), make_frame("hex_nut", 4)]


def networks(driver: Any, bundle: Bundle) -> Mapping[str, HostNetwork]:
    return {
        g: HostNetwork(driver, bundle.graph_path(g), bundle.graph(g).inputs, bundle.graph(g).outputs)
        for g in ("rgb", "points", "tokens", "score")
    }


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        (DeviceOptions(graphs=False), 1e-5),
        (DeviceOptions(score="plan", graphs=False), 1e-5),
        (DeviceOptions(half=True, graphs=False), 2e-3),
    ],
    ids=["fused", "plan", "fp16 storage"],
)
def test_same_results_as_on_the_cpu(
    options: DeviceOptions, tolerance: float, driver: Any, images: Any, bundle: Bundle, frames: list[Frame]
) -> None:
    reference = Detector(bundle, threads=1, need_threshold=False)
    detector = DeviceDetector(
        bundle,
        precision="fp32",
        need_threshold=False,
        options=options,
        driver=driver,
        networks=networks(driver, bundle),
        images=images,
    )
    for frame in frames:
        assert_same(detector(frame), reference(frame), tolerance, masks=False)
    detector.device.close()


def test_point_operations_and_scoring_as_cuda_graphs(
    driver: Any, images: Any, bundle: Bundle, frames: list[Frame]
) -> None:
    """Networks on the host cannot be recorded; the parts without networks can, and are the same after it."""
    detector = DeviceDetector(
        bundle,
        precision="fp32",
        need_threshold=False,
        options=DeviceOptions(slots=1, graphs=False),
        driver=driver,
        networks=networks(driver, bundle),
        images=images,
    )
    wanted = detector(frames[0])
    pipeline, slot = detector.device, detector.device._slots[0]
    stream = pipeline.colour_stream
    graph = driver.record_graph(stream, lambda: pipeline._points.enqueue(slot, stream))
    graph.launch(stream)
    again = driver.record_graph(stream, lambda: pipeline._score.enqueue(slot, stream, False, 0))
    again.launch(stream)
    pipeline._map.enqueue(slot, stream)
    slot.out_map.fetch(stream)
    driver.synchronize(stream)
    assert wanted.sample_map is not None
    np.testing.assert_array_equal(slot.out_map.read(), wanted.sample_map)
    for recorded in (graph, again):
        recorded.free()
    pipeline.close()


@pytest.mark.parametrize("backend", DEVICE_BACKENDS)
def test_with_engines_built_here(backend: str, driver: Any, bundle: Bundle, frames: list[Frame]) -> None:
    """Whole: engines and kernels built on this device, CUDA graphs, two slots. FP32: 1e-4 of the map's maximum."""
    from edge_ad.engines.build import build_engines

    try:
        build_engines(bundle, backend, "fp32")
        detector = DeviceDetector(bundle, backend, "fp32", need_threshold=False)
    except EdgeAdError as e:
        if "is not installed" in str(e) or "not visible" in str(e) or "builds no engine for" in str(e):
            pytest.skip(str(e))
        raise
    reference = Detector(bundle, threads=1, need_threshold=False)
    for frame in (*frames, *frames, *frames):
        assert_same(detector(frame), reference(frame), 1e-4, masks=False)
    assert detector.device.why_no_graphs == ""
    detector.device.close()
