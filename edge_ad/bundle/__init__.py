"""The bundle: the one artefact that travels from the workstation to the edge box. Lean, and never a pickle.

``manifest.json``, ``onnx/*.onnx`` (``onnx/<precision>/*.onnx`` for other precisions), ``anchors.npz``,
``scenes/<class>.npz``, ``golden/*.npz`` and, added on the box that runs them, ``engines/<key>/``.
"""

from edge_ad.bundle.archive import pack
from edge_ad.bundle.golden import GoldenFrame, golden_bytes, read_golden
from edge_ad.bundle.manifest import SCHEMA, ClassEntry, GraphSpec, Manifest, TensorSpec, Threshold
from edge_ad.bundle.reader import Bundle, open_bundle
from edge_ad.bundle.variants import BASE, OperatingPoint, VariantEntry
from edge_ad.bundle.writer import add_files, write_bundle

__all__ = [
    "BASE",
    "SCHEMA",
    "Bundle",
    "ClassEntry",
    "GoldenFrame",
    "GraphSpec",
    "Manifest",
    "OperatingPoint",
    "TensorSpec",
    "Threshold",
    "VariantEntry",
    "add_files",
    "golden_bytes",
    "open_bundle",
    "pack",
    "read_golden",
    "write_bundle",
]
