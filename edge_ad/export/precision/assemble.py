"""FP16 and INT8 graphs of a bundle: made, measured where they can be, and put into it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from edge_ad.bundle import Bundle, add_files
from edge_ad.bundle.manifest import MANIFEST, seal
from edge_ad.bundle.variants import BASE
from edge_ad.export.precision.fp16 import cast_fp16
from edge_ad.export.precision.graph import Graph, Model
from edge_ad.export.precision.overflow import Kept, Track, find_overflows
from edge_ad.export.precision.replay import Parts, Replay
from edge_ad.export.precision.shared import share_standardisation
from edge_ad.export.precision.twin import rounding_twin
from edge_ad.files import read_json, write_json

TITLE = "# edge-ad fp16 nodes that stay fp32"


def base_graphs(bundle: Bundle) -> dict[str, Model]:
    """Graph name -> the float32 graph that the passes start from, in the order of the manifest."""
    return {name: share_standardisation(bundle.graph_path(name), name) for name in bundle.manifest.graphs}


def digests(bundle: Bundle) -> dict[str, str]:
    """Graph name -> SHA-256 of its float32 file, in the order of the manifest."""
    return {name: bundle.manifest.files[bundle.graph_file(name)] for name in bundle.manifest.graphs}


def graph_sizes(bundle: Bundle, precision: str) -> dict[str, tuple[int, int]]:
    """Graph name -> bytes of its float32 file and of its file in another precision."""
    return {
        name: (bundle.graph_path(name).stat().st_size, bundle.graph_path(name, precision).stat().st_size)
        for name in bundle.manifest.graphs
    }


def note_file(bundle: Bundle, precision: str) -> str:
    """Where the bundle keeps what a person may want to read about a precision (kept nodes, calibration table)."""
    middle = "" if bundle.variant == BASE else f"{bundle.variant}/"
    return f"precision/{middle}{precision}.txt"


def kept_nodes(kept: Sequence[Kept], graph: str) -> set[str]:
    """Names of the nodes of one graph that stay FP32."""
    return {k.node for k in kept if k.graph == graph}


def kept_text(kept: Sequence[Kept]) -> str:
    """The list as a file: graph, node, why, and for an overflow the largest absolute value that was seen."""
    lines = [TITLE, "# graph  node  why  peak"]
    lines += [f"{k.graph}  {k.node}  {k.why}  {'-' if k.peak is None else format(k.peak, '.6g')}" for k in kept]
    return "\n".join(lines) + "\n"


def add_fp16(bundle: Bundle, replay: Replay, parts: Parts, track: Track | None = None) -> tuple[Bundle, list[Kept]]:
    """Put FP16 graphs into a bundle; what overflows on ``parts`` stays FP32.

    Returns
    -------
    The bundle (FP16 thresholds that were set on other graphs are gone), and what stays FP32.

    Raises
    ------
    EdgeAdError
        See :func:`find_overflows`; a packed bundle; a full disk.
    """
    bundle.writable("graphs cannot be added")
    models = base_graphs(bundle)
    kept = find_overflows(replay, models, parts, track=track)
    files: dict[str, bytes | Path] = {
        bundle.precision_file(name, "fp16"): cast_fp16(Graph(path, name), kept_nodes(kept, name))
        for name, path in models.items()
    }
    files[note_file(bundle, "fp16")] = kept_text(kept).encode()
    return _add(bundle, files, "fp16"), kept


def add_int8(bundle: Bundle, graphs: Mapping[str, bytes], table: str) -> Bundle:
    """Put INT8 graphs and their calibration table into a bundle."""
    files: dict[str, bytes | Path] = {bundle.precision_file(name, "int8"): data for name, data in graphs.items()}
    files[note_file(bundle, "int8")] = table.encode()
    return _add(bundle, files, "int8")


def _add(bundle: Bundle, files: Mapping[str, bytes | Path], precision: str) -> Bundle:
    written = add_files(bundle, files, forget=precision)
    return written.as_variant(bundle.variant, bundle.stride)


@contextmanager
def stand_in(bundle: Bundle, graphs: Mapping[str, bytes]) -> Iterator[Bundle]:
    """A scratch copy of a bundle whose float32 graphs are others; for measurements, gone after the block.

    It is opened without its hashes being checked, and must not be calibrated: it would forget.
    """
    with tempfile.TemporaryDirectory(prefix="edge-ad-") as root:
        folder = Path(root) / bundle.path.resolve().name
        folder.mkdir()
        for name in bundle.manifest.files:
            if not name.endswith(".onnx"):
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(bundle.path / name, target)
        values = read_json(bundle.path / MANIFEST)
        if "score" in graphs:  # the compiled scoring stage would compute in float32
            values["files"].pop(str(PurePosixPath(bundle.graph_file("score")).with_suffix(".npz")), None)
        write_json(folder / MANIFEST, seal(values))
        for name in bundle.manifest.graphs:
            target = folder / bundle.graph_file(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            if name in graphs:
                target.write_bytes(graphs[name])
            else:
                target.symlink_to(bundle.graph_path(name).resolve())
        yield Bundle.open(folder, verify=False).as_variant(bundle.variant, bundle.stride)


@contextmanager
def twin_bundle(bundle: Bundle) -> Iterator[Bundle]:
    """A scratch bundle whose float32 graphs are the rounding twins of the bundle's FP16 graphs.

    Raises
    ------
    EdgeAdError
        The bundle has no FP16 graphs; with the command that makes them.
    """
    with stand_in(
        bundle, {g: rounding_twin(bundle.graph_path(g, "fp16"), g).onnx for g in bundle.manifest.graphs}
    ) as twin:
        yield twin
