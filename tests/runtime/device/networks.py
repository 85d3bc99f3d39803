"""The bundle's graphs in ONNX Runtime on the emulated driver's memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from edge_ad.bundle import Bundle, TensorSpec
from edge_ad.runtime.kernels import names
from tests.runtime.device.emulated import EmulatedDriver, FakeStream


class OrtNetwork:
    """One graph in ONNX Runtime behind the names of :class:`edge_ad.engines.runner.Engine`."""

    def __init__(
        self, driver: EmulatedDriver, path: Path, specs: tuple[Sequence[TensorSpec], Sequence[TensorSpec]]
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._driver = driver
        self.inputs, self.outputs = specs
        self._in: dict[str, tuple[tuple[int, ...], int]] = {}
        self._out: dict[str, int] = {}

    def set_input(self, name: str, shape: tuple[int, ...], address: int) -> None:
        spec = next(t for t in self.inputs if t.name == name)
        assert len(shape) == len(spec.shape) and all(isinstance(w, str) or w == n for n, w in zip(shape, spec.shape))
        assert address % 256 == 0, "TensorRT wants 256-byte alignment"
        self._in[name] = shape, address

    def output_shape(self, name: str) -> tuple[int, ...]:
        spec = next(t for t in self.outputs if t.name == name)
        rows = next(iter(self._in.values()))[0][0]
        return tuple(rows if isinstance(d, str) else d for d in spec.shape)

    def set_output(self, name: str, address: int) -> None:
        assert address % 256 == 0, "TensorRT wants 256-byte alignment"
        self._out[name] = address

    def execute(self, stream: int) -> None:
        inputs, outputs = dict(self._in), dict(self._out)
        assert set(inputs) == {t.name for t in self.inputs} and set(outputs) == {t.name for t in self.outputs}
        driver = self._driver

        def call() -> None:
            feed = {}
            for spec in self.inputs:
                shape, address = inputs[spec.name]
                memory, at = driver.find(address)
                driver.touch(memory, stream, False, f"network input {spec.name}")
                dtype = np.dtype(spec.dtype)
                nbytes = int(np.prod(shape)) * dtype.itemsize
                assert at + nbytes <= memory.nbytes
                feed[spec.name] = memory.bytes[at : at + nbytes].view(dtype).reshape(shape).copy()
            for spec, value in zip(self.outputs, self._session.run([t.name for t in self.outputs], feed)):
                memory, at = driver.find(outputs[spec.name])
                driver.touch(memory, stream, True, f"network output {spec.name}")
                assert at + value.nbytes <= memory.nbytes
                memory.bytes[at : at + value.nbytes] = np.ascontiguousarray(value).reshape(-1).view(np.uint8)

        driver.do(FakeStream(stream), call)


def networks(driver: EmulatedDriver, bundle: Bundle) -> dict[str, OrtNetwork]:
    """The bundle's graphs."""
    return {
        g: OrtNetwork(driver, bundle.graph_path(g), (bundle.graph(g).inputs, bundle.graph(g).outputs))
        for g in ("rgb", "points", "tokens", "score")
    }


def images() -> dict[str, bytes]:
    """What :meth:`EmulatedDriver.load` takes for a cubin: the name of a source."""
    return {name: name.encode() for name in names()}
