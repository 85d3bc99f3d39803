"""Engine folders whose plans are not TensorRT's: the name of the graph as bytes. For identity checks and fakes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edge_ad.bundle import Bundle
from edge_ad.engines import PlanRecord, Sidecar
from edge_ad.files import write_json


def write_engine(bundle: Bundle, version: str, capabilities: tuple[str, ...]) -> Path:
    """Write ``engines/tensorrt-rtx-fp32-.../`` with a plan a graph and its sidecar; return the folder."""
    plans = {}
    for name, graph in bundle.manifest.graphs.items():
        data = name.encode()
        digest = hashlib.sha256(data).hexdigest()
        source = bundle.manifest.files[graph.file]
        plans[name] = PlanRecord(f"{name}.plan", graph.inputs, graph.outputs, source, digest, len(data), 0.1, {})
    sidecar = Sidecar("tensorrt-rtx", version, "fp32", capabilities, (), None, "Linux", "edge-ad", "2025-01-01", plans)
    folder = bundle.path / "engines" / sidecar.key
    folder.mkdir(parents=True)
    for name in plans:
        (folder / f"{name}.plan").write_bytes(name.encode())
    write_json(folder / "sidecar.json", sidecar.to_dict())
    return folder
