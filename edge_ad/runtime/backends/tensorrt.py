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
from edge_ad.engines.identity import check, find_engine
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
        module = trt.load_module(backend)
        folder, sidecar = find_engine(bundle, backend, precision, device.compute_capability)
        check(
            folder,
            sidecar,
            bundle,
            version=trt.version(module),
            capability=device.compute_capability,
            graphs=(graph,),
        )
        record = sidecar.plans[graph]
        self._where = f"engine {folder.name}/{record.file} of {bundle.where}"
        self._cuda = CudaContext()
        with self._cuda.current():
            self._engine = trt.Engine(backend, (folder / record.file).read_bytes(), self._where)
        self.inputs: tuple[TensorSpec, ...] = tuple(self._engine.inputs)
        self.outputs: tuple[TensorSpec, ...] = tuple(self._engine.outputs)
        agree(self._where, spec, self.inputs, self.outputs)
        self._buffers = {t.name: self._cuda.buffer() for t in (*self.inputs, *self.outputs)}

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once and wait; see :class:`edge_ad.runtime.backends.base.Session`."""
        feed = contiguous(self._where, self.inputs, inputs)
        with self._cuda.current():
            for name, array in feed.items():
                address = self._buffers[name].reserve(array.nbytes)
                self._cuda.upload(address, array)
                self._engine.set_input(name, array.shape, address)
            addresses = {}
            for spec in self.outputs:
                shape = self._engine.output_shape(spec.name)
                dtype = np.dtype(spec.dtype)
                address = self._buffers[spec.name].reserve(int(np.prod(shape)) * dtype.itemsize)
                self._engine.set_output(spec.name, address)
                addresses[spec.name] = (shape, dtype, address)
            self._engine.execute(self._cuda.stream)
            results = {name: self._cuda.download(*where) for name, where in addresses.items()}
            self._cuda.synchronize()
        return results
