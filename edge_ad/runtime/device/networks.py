"""The bundle's networks on the device: tensors bound to device memory by name, run on a stream, nothing copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from edge_ad.bundle import Bundle, TensorSpec
from edge_ad.errors import EdgeAdError
from edge_ad.runtime.device.api import Driver, Memory, Stream
from edge_ad.runtime.device.buffers import View

GRAPHS = ("rgb", "points", "tokens", "score")


class Network(Protocol):
    """What is used of :class:`edge_ad.engines.runner.Engine`."""

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """Inputs by name."""

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """Outputs by name."""

    def set_input(self, name: str, shape: tuple[int, ...], address: int) -> None:
        """Shape and address of an input."""

    def output_shape(self, name: str) -> tuple[int, ...]:
        """Shape of an output, once the inputs are set."""

    def set_output(self, name: str, address: int) -> None:
        """Address of an output."""

    def execute(self, stream: int) -> None:
        """Queue one run."""


Bound = Mapping[str, tuple[tuple[int, ...], Memory | View]]
"""Tensor -> (shape, memory)."""


def run(network: Network, inputs: Bound, outputs: Bound, stream: Stream) -> None:
    """Bind every tensor by name and queue one run.

    Raises
    ------
    EdgeAdError
        An output of another shape than the memory was made for.
    """
    for name, (shape, memory) in inputs.items():
        network.set_input(name, shape, memory.address)
    for name, (shape, memory) in outputs.items():
        found = network.output_shape(name)
        if found != shape:
            raise EdgeAdError(f"output '{name}' of shape {found}", f"{shape}", "run edge-ad build-engine again")
        network.set_output(name, memory.address)
    network.execute(stream.handle)


def check_types(networks: Mapping[str, Network]) -> None:
    """Refuse plans whose tensors are not float32 (and the class index int64): the buffers between the stages are."""
    for graph, network in networks.items():
        for spec in (*network.inputs, *network.outputs):
            wanted = "int64" if spec.name == "class_index" else "float32"
            if np.dtype(spec.dtype) != wanted:
                raise EdgeAdError(
                    f"plan {graph}: '{spec.name}' is {spec.dtype}",
                    f"{wanted} at the plan's border; FP16 belongs inside",
                    "run edge-ad export and edge-ad build-engine again",
                )


def open_networks(
    bundle: Bundle, backend: str, precision: str, driver: Driver
) -> tuple[dict[str, Network], dict[str, bytes]]:
    """The plans and the kernels' cubins of the engine for this device; inside ``driver.current()``.

    Raises
    ------
    EdgeAdError
        No engine for this device, one that fails its checks, or one without kernels; with the command that builds it.
    """
    from edge_ad.engines import trt
    from edge_ad.engines.identity import build_command, check, find_engine, read_plan
    from edge_ad.engines.kernels import read_kernels
    from edge_ad.engines.runner import Engine

    version = trt.version(trt.load_module(backend))
    folder, sidecar = find_engine(bundle, backend, precision, driver.capability, version)
    check(folder, sidecar, bundle, version=version, capability=driver.capability, graphs=())
    images = read_kernels(folder, driver.capability, build_command(backend, precision, bundle, force=True))
    networks: dict[str, Network] = {}
    for graph in GRAPHS:
        where = f"engine {folder.name}/{sidecar.plans[graph].file} of {bundle.where}"
        plan = read_plan(folder, sidecar, bundle, graph)
        networks[graph] = Engine(backend, plan, where, driver.memory, "WEIGHT_STREAMING" in sidecar.flags)
    check_types(networks)
    return networks, images
