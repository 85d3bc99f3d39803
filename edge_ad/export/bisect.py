"""Where inside a graph the first difference arises: bisection over its intermediate tensors (needs ``onnx``).

Both files are given further outputs: tensors of one name and shape in both, evenly spaced in the order of the graph.
The first that differs and the last before it that does not bound the next round. A compiler cannot fuse across a tensor
that is an output, so a fault of a fusion may vanish while one looks at it; then the report says that it did.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle import Bundle
from edge_ad.engines import trt
from edge_ad.engines.compare import relative_error
from edge_ad.engines.targets import rows_of
from edge_ad.engines.verify import VerifyReport
from edge_ad.errors import EdgeAdError, missing_package

PROBES = 8
"""Tensors looked at in one run: few, so that most of the graph is compiled as it is served."""
Arrays = dict[str, NDArray[Any]]
Run = Callable[[Path, Mapping[str, NDArray[Any]]], Arrays]


@dataclass(frozen=True)
class Probe:
    """A tensor in the order of the graph: the node that makes it, and its relative error."""

    tensor: str
    node: str
    operator: str
    error: float


@dataclass(frozen=True)
class Bisection:
    """``first``: the first tensor that differs by more than ``allowed``, or None; ``probes``: all that were looked at,
    in the graph's order; ``tensors``: how many the two files have in common."""

    graph: str
    allowed: float
    first: Probe | None
    probes: tuple[Probe, ...]
    tensors: int


def bisect_graph(bundle: Bundle, report: VerifyReport, graph: str) -> Bisection:
    """Where inside ``graph`` the two sides part, on the inputs of the last part that was compared.

    Raises
    ------
    EdgeAdError
        No such graph, the package ``onnx`` is missing, or a side cannot run its file with further outputs.
    """
    sides = (report.found, report.expected)
    files = [bundle.graph_path(graph, s.precision) for s in sides]
    runs = [runner(s.backend, s.precision, graph, rows_of(bundle, graph)) for s in sides]
    return bisect(graph, (files[0], files[1]), (runs[0], runs[1]), report.inputs[graph], report.allowed)


def bisect(
    graph: str,
    files: tuple[Path, Path],
    runs: tuple[Run, Run],
    inputs: Mapping[str, NDArray[Any]],
    allowed: float,
) -> Bisection:
    """Find the first tensor at which two engines of one graph part.

    Parameters
    ----------
    files : the ONNX files of the side under test and of the other. runs : how each side runs a file.
    inputs : of the graph, the same for both. allowed : relative error that counts as equal.

    Raises
    ------
    EdgeAdError
        The package ``onnx`` is missing, or a side cannot run its file with further outputs.
    """
    try:
        import onnx
    except ImportError:
        raise missing_package("onnx", "export") from None
    models = [onnx.load(str(f)) for f in files]
    made = [{o: n for n in m.graph.node for o in n.output if o} for m in models]
    kinds = [_float_tensors(onnx, m) for m in models]
    common = [name for name in made[0] if name in made[1] and name in kinds[0] and name in kinds[1]]
    seen: dict[str, float] = {}
    low, high = 0, len(common)  # the first difference lies in [low, high)
    with tempfile.TemporaryDirectory(prefix="edge-ad-") as folder:
        while low < high:
            steps = np.unique(np.linspace(low, high - 1, PROBES).round().astype(int))
            wanted = [common[i] for i in steps if common[i] not in seen]
            if wanted:
                answers = []
                for side, (model, run) in enumerate(zip(models, runs)):
                    path = Path(folder) / f"{side}.onnx"
                    path.write_bytes(_with_outputs(onnx, model, wanted, kinds[side]))
                    answers.append(run(path, inputs))
                for name in wanted:
                    seen[name] = relative_error(*(np.asarray(a[name], np.float32) for a in answers))
            bad = [int(i) for i in steps if not seen[common[i]] <= allowed]
            if not bad:
                break
            good = [int(i) for i in steps if i < bad[0]]
            before, high = (max(good) + 1 if good else low), bad[0] + 1
            if before == bad[0]:
                break
            low = before
    probes = tuple(
        Probe(name, made[0][name].name, made[0][name].op_type, seen[name]) for name in common if name in seen
    )
    first = next((p for p in probes if not p.error <= allowed), None)
    return Bisection(graph, allowed, first, probes, len(common))


def _float_tensors(onnx: Any, model: Any) -> dict[str, int]:
    """Element type of every floating-point tensor whose type is known."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    floating = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    values = [*inferred.value_info, *inferred.output]
    return {v.name: v.type.tensor_type.elem_type for v in values if v.type.tensor_type.elem_type in floating}


def _with_outputs(onnx: Any, model: Any, names: list[str], kinds: Mapping[str, int]) -> bytes:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    there = {o.name for o in copy.graph.output}
    copy.graph.output.extend(onnx.helper.make_tensor_value_info(n, kinds[n], None) for n in names if n not in there)
    return bytes(copy.SerializeToString())


def runner(backend: str, precision: str, graph: str, rows: trt.Range) -> Run:
    """How a backend runs an ONNX file once; raises EdgeAdError for a backend that is missing."""
    if backend == "onnxruntime":
        return _run_onnxruntime
    if backend == "openvino":
        from edge_ad.runtime.backends.openvino import IN_BF16

        return partial(_run_openvino, hint="bf16" if precision == "bf16" and graph in IN_BF16 else "f32")
    if backend in trt.PACKAGES:

        def run(path: Path, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
            from edge_ad.runtime.backends.tensorrt import run_plan

            plan = trt.build_plan(backend, path, trt.BuildOptions(rows=rows))
            return run_plan(backend, plan.data, f"{path.name} with further outputs", inputs)

        return run
    raise EdgeAdError(f"unknown backend '{backend}'", "onnxruntime, openvino, tensorrt or tensorrt-rtx")


def _run_onnxruntime(path: Path, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [o.name for o in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(inputs))))
    except Exception as e:  # ONNX Runtime raises a class of its own for each kind of failure
        text = str(e).replace("\n", " ")
        raise EdgeAdError(f"onnxruntime cannot run the graph with further outputs ({text})") from None


def _run_openvino(path: Path, inputs: Mapping[str, NDArray[Any]], *, hint: str) -> Arrays:
    try:
        import openvino
    except ImportError:
        raise missing_package("openvino", "openvino") from None
    model = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": hint})
    answer = model(dict(inputs))
    return {name: np.asarray(value) for output, value in answer.items() for name in output.get_names()}
