"""TensorRT and TensorRT-RTX: a plan from the bundle's ``engines/``, checked before it is loaded, run on one GPU.

Running needs an NVIDIA GPU, its driver and PyCUDA; every refusal before that point needs none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle import Bundle, TensorSpec
from edge_ad.engines import trt
from edge_ad.engines.identity import check, find_engine, read_plan
from edge_ad.engines.runner import Engine
from edge_ad.runtime.backends.base import agree, contiguous
from edge_ad.runtime.cuda import CudaContext, require_device


class TensorRTSession:
    """One graph as a plan on the first GPU.

    Raises
    ------
    EdgeAdError
        No CUDA device, no package, no engine for this device, or one that fails its identity check.
    """

    def __init__(self, bundle: Bundle, graph: str, backend: str, precision: str = "fp32") -> None:
        spec = bundle.graph(graph)
        bundle.graph_file(graph, precision)
        device = require_device("TensorRT engines run on")
        version = trt.version(trt.load_module(backend))
        capability = device.compute_capability
        folder, sidecar = find_engine(bundle, backend, precision, capability, version)
        check(folder, sidecar, bundle, version=version, capability=capability, graphs=())
        plan = read_plan(folder, sidecar, bundle, graph)
        record = sidecar.plans[graph]
        self._where = f"engine {folder.name}/{record.file} of {bundle.where}"
        self._cuda = CudaContext()
        streaming = "WEIGHT_STREAMING" in sidecar.flags
        with self._cuda.current():
            self._engine = Engine(backend, plan, self._where, self._cuda.memory, streaming)
        self.inputs: tuple[TensorSpec, ...] = tuple(self._engine.inputs)
        self.outputs: tuple[TensorSpec, ...] = tuple(self._engine.outputs)
        agree(self._where, spec, self.inputs, self.outputs)
        self._io = PlanIO(self._cuda, self._engine)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once and wait; see :class:`edge_ad.runtime.backends.base.Session`."""
        return self._io.run(contiguous(self._where, self.inputs, inputs))


class PlanIO:
    """Buffers for a plan's tensors, and one run of it with a copy there and back."""

    def __init__(self, cuda: CudaContext, engine: Engine) -> None:
        self._cuda, self._engine = cuda, engine
        self._buffers = {t.name: cuda.buffer() for t in (*engine.inputs, *engine.outputs)}

    def run(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Every output of one run; ``feed`` holds C-contiguous arrays of the plan's own types."""
        with self._cuda.current():
            for name, array in feed.items():
                address = self._buffers[name].reserve(array.nbytes)
                self._cuda.upload(address, array)
                self._engine.set_input(name, array.shape, address)
            addresses = {}
            for spec in self._engine.outputs:
                shape = self._engine.output_shape(spec.name)
                dtype = np.dtype(spec.dtype)
                address = self._buffers[spec.name].reserve(int(np.prod(shape)) * dtype.itemsize)
                self._engine.set_output(spec.name, address)
                addresses[spec.name] = (shape, dtype, address)
            self._engine.execute(self._cuda.stream)
            results = {name: self._cuda.download(*where) for name, where in addresses.items()}
            self._cuda.synchronize()
        return results


def run_plan(backend: str, plan: bytes, what: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Run a plan once that was built a moment ago in this process; ``what`` names it in errors.

    Raises
    ------
    EdgeAdError
        No CUDA device, or TensorRT refuses the plan.
    """
    cuda = CudaContext()
    with cuda.current():
        engine = Engine(backend, plan, what, cuda.memory)
    return PlanIO(cuda, engine).run(contiguous(what, tuple(engine.inputs), inputs))
