"""From a bundle on disk to a detector that is ready to inspect frames."""

from __future__ import annotations

from pathlib import Path

from edge_ad.bundle import BASE, Bundle
from edge_ad.runtime.detector import Detector


def load_detector(
    bundle: str | Path | Bundle,
    backend: str = "onnxruntime",
    precision: str = "fp32",
    *,
    threads: int | None = None,
    class_name: str | None = None,
    variant: str = BASE,
    stride: int = 1,
    on_device: bool = False,
) -> Detector:
    """Open a bundle (its hashes are checked) and make it ready to inspect frames.

    ``variant``, ``stride``: which of the bundle's variants, scored at every so many-th pixel (1: exact).
    ``on_device``: with a TensorRT backend, all between the images and the map on the GPU (docs/cuda-runtime.md).

    Raises
    ------
    EdgeAdError
        The bundle is damaged or from a newer version, the backend is missing, a class has no threshold, or the engine
        does not answer the golden frames as the reference did (:mod:`edge_ad.engines.gate`).
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(Path(bundle))
    view = opened.as_variant(variant, stride)
    if on_device:
        from edge_ad.runtime.device.detector import DeviceDetector

        detector: Detector = DeviceDetector(view, backend, precision, class_name)
    else:
        detector = Detector(view, backend, precision, threads, class_name)
    from edge_ad.engines.gate import ensure  # at first load on a device the golden frames decide

    ensure(detector, backend)
    return detector
