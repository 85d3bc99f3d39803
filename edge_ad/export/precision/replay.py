"""The runtime's own path over prepared samples, with other graphs in the place of the bundle's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edge_ad.bundle import Bundle, TensorSpec
from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.frame import Frame
from edge_ad.runtime.backends import Session
from edge_ad.runtime.backends.base import contiguous
from edge_ad.runtime.detector import Detector
from edge_ad.runtime.stages import PreparedPart, Scored, Stopwatch

GRAPHS = ("rgb", "points", "tokens", "score")
Parts = Sequence[tuple[PreparedPart, str]]
Watch = Callable[[str, NDArray[Any]], None]


class ModelSession:
    """One ONNX model in ONNX Runtime's CPU provider, in the place of a bundle's graph.

    Parameters
    ----------
    model : bytes or file. inputs, outputs : what the runtime gives and takes. watch : called with the name and the
        values of every further output that the model has.
    """

    def __init__(
        self,
        model: bytes | Path,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        threads: int = 1,
        watch: Watch | None = None,
    ) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        source = model if isinstance(model, bytes) else str(model)
        try:
            self._session: Any = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as e:  # ONNX Runtime raises a class of its own for each kind of failure
            raise EdgeAdError(f"onnxruntime cannot load the graph ({e})", "", "report this model") from None
        self.inputs, self.outputs, self._watch = inputs, outputs, watch
        self._wanted = [o.name for o in outputs]
        names = [o.name for o in self._session.get_outputs()]
        self._names = names if watch else self._wanted

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once; further outputs go to ``watch``."""
        feed = contiguous("graph", self.inputs, inputs)
        values = dict(zip(self._names, self._session.run(self._names, feed)))
        if self._watch is not None:
            for name, value in values.items():
                if name not in self._wanted:
                    self._watch(name, value)
            for name, value in feed.items():
                self._watch(name, value)
        return {name: values[name] for name in self._wanted}


class Replay:
    """A detector of a bundle whose graphs can be exchanged; float32 unless something else is given."""

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        self.bundle, self.threads = bundle, threads
        self.detector = Detector(bundle, "onnxruntime", "fp32", threads, need_threshold=False)
        self._own: dict[str, Session] = dict(self.detector.sessions)

    def session(self, graph: str, model: bytes | Path, watch: Watch | None = None) -> ModelSession:
        """A session of another model for one of the bundle's graphs."""
        own = self._own[graph]
        return ModelSession(model, own.inputs, own.outputs, self.threads, watch)

    def prepare(self, frames: Sequence[tuple[Frame, str]]) -> list[tuple[PreparedPart, str]]:
        """(part before the networks, class) of (frame, class) pairs; what cannot be scored is left out."""
        out = []
        for frame, class_name in frames:
            name = class_name or self.detector.choose_class(frame)
            try:
                samples = self.detector.preprocess(frame, name).samples
                out += [(self.detector.prepare_part(s, Stopwatch()), name) for s in samples]
            except InvalidFrame:
                continue
        return out

    @contextmanager
    def using(self, sessions: Mapping[str, Session] | None) -> Iterator[Detector]:
        """The detector with these sessions in the place of the bundle's own, for as long as the block lasts."""
        self.detector.sessions = {**self._own, **(sessions or {})}
        try:
            yield self.detector
        finally:
            self.detector.sessions = dict(self._own)

    def run(self, parts: Parts, sessions: Mapping[str, Session] | None = None) -> Iterator[Scored]:
        """Score every part."""
        for part, class_name in parts:
            with self.using(sessions) as detector:
                watch = Stopwatch()
                yield detector.score_part(detector.encode_part(part, watch, class_name), class_name, watch)
