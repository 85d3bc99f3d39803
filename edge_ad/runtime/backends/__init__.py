"""Backends: what runs a bundle's graphs. No silent fallback: a backend that is missing says what to install."""

from __future__ import annotations

from edge_ad.bundle import Bundle
from edge_ad.errors import EdgeAdError
from edge_ad.runtime.backends.base import Session

BACKENDS = ("onnxruntime", "openvino", "tensorrt", "tensorrt-rtx")

__all__ = ["BACKENDS", "Session", "load_session"]


def load_session(
    bundle: Bundle,
    graph: str,
    backend: str = "onnxruntime",
    precision: str = "fp32",
    threads: int | None = None,
) -> Session:
    """A session that runs one graph of a bundle.

    Parameters
    ----------
    graph : ``"rgb"``, ``"points"``, ``"tokens"`` or ``"score"``.
    backend : ``"onnxruntime"``, ``"openvino"`` (x86), or ``"tensorrt"`` / ``"tensorrt-rtx"``, whose engine must have
        been built for this box.
    precision : a precision whose graphs the bundle holds.
    threads : CPU threads of one run; None: every processor that this process may use.

    Raises
    ------
    EdgeAdError
        An unknown backend, graph or precision, a missing package or device, or an engine that is not this bundle's.
    """
    if backend == "onnxruntime":
        from edge_ad.runtime.backends.onnxruntime import OnnxSession

        return OnnxSession(bundle, graph, precision, threads)
    if backend == "openvino":
        from edge_ad.runtime.backends.openvino import OpenVinoSession

        return OpenVinoSession(bundle, graph, precision, threads)
    if backend in ("tensorrt", "tensorrt-rtx"):
        from edge_ad.runtime.backends.tensorrt import TensorRTSession

        return TensorRTSession(bundle, graph, backend, precision)
    raise EdgeAdError(f"unknown backend '{backend}'", f"one of {', '.join(BACKENDS)}")
