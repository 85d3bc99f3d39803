"""What a precision costs each graph, measured when it was made and kept in the bundle for the golden gate.

``precision/fp16.error.json``, ``int8.error.json`` (``precision/<variant>/...``): graph -> relative error on the golden
frames, each graph by itself on the float32 graphs' inputs. FP16 is measured on its rounding twin, INT8 on its own file
in ONNX Runtime.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from edge_ad.bundle import Bundle, add_files
from edge_ad.bundle.variants import BASE
from edge_ad.engines.compare import GRAPHS, graph_errors, load_sessions, points_of, run_sample
from edge_ad.errors import EdgeAdError
from edge_ad.files import read_json
from edge_ad.runtime.backends import Session
from edge_ad.runtime.preprocess import Preprocessor, Scene


def cost_file(bundle: Bundle, precision: str) -> str:
    """The file within the bundle."""
    middle = "" if bundle.variant == BASE else f"{bundle.variant}/"
    return f"precision/{middle}{precision}.error.json"


def measure_cost(bundle: Bundle, sessions: Mapping[str, Session], threads: int | None = None) -> dict[str, float]:
    """Graph -> worst relative error over the golden frames.

    Parameters
    ----------
    sessions : of the precision's graphs, or of its rounding twin.
    """
    reference = load_sessions(bundle, "onnxruntime", "fp32", threads)
    preprocess = golden_preprocessor(bundle)
    worst = dict.fromkeys(GRAPHS, 0.0)
    for golden in bundle.golden():
        index = bundle.class_names.index(golden.class_name)
        sample = preprocess(golden.frame, golden.class_name).samples[0]
        points = points_of(bundle, sample)
        expected = run_sample(bundle, reference, sample, points, index)
        found = run_sample(bundle, sessions, sample, points, index)
        for graph, error in graph_errors(sessions, found, expected, sample, points, index).items():
            worst[graph] = max(worst[graph], error)
    return worst


def write_cost(bundle: Bundle, precision: str, cost: Mapping[str, float]) -> Bundle:
    """Keep what a precision costs in the bundle; raises what :func:`edge_ad.bundle.add_files` does."""
    data = json.dumps({k: float(f"{v:.3g}") for k, v in cost.items()}, indent=2) + "\n"
    written = add_files(bundle, {cost_file(bundle, precision): data.encode()})
    return written.as_variant(bundle.variant, bundle.stride)


def read_cost(bundle: Bundle, precision: str) -> dict[str, float]:
    """What was kept; empty where nothing was."""
    name = cost_file(bundle, precision)
    if name not in bundle.manifest.files:
        return {}
    try:
        return {g: float(v) for g, v in read_json(bundle.path / name).items() if g in GRAPHS and 0 <= float(v) < 1}
    except (TypeError, ValueError, AttributeError):
        raise EdgeAdError(f"{bundle.where}: {name} is damaged", "graph -> error", "make the graphs again") from None


def golden_preprocessor(bundle: Bundle) -> Preprocessor:
    """The one preprocessing with the bundle's own scenes."""
    scenes = {}
    for name in bundle.class_names:
        arrays = bundle.scene(name) or {}
        scenes[name] = Scene(arrays.get("roi"), arrays.get("expected_depth"))
    return Preprocessor(bundle.preset.geometry, bundle.preset.rgb.mean, bundle.preset.rgb.std, scenes)
