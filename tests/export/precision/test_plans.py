"""FP16 and INT8 graphs parse and build as TensorRT-RTX plans, without a GPU, for every target."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edge_ad.bundle import Bundle
from edge_ad.calibration.int8.calibrate import calibrate_int8
from edge_ad.calibration.int8.frames import frames_of_bundle
from edge_ad.cli.main import main
from edge_ad.export.precision.fp16 import cast_fp16
from edge_ad.export.precision.graph import Graph
from edge_ad.export.precision.int8 import to_int8
from edge_ad.export.precision.roles import kept_by_rule, quantisable

trt: Any = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
TARGETS = ("SM86", "SM89", "SM120")
GRAPHS = ("rgb", "points", "tokens", "score")


def build(path: Path, target: str) -> int:
    """Bytes of the plan; fails with the parser's and builder's own words. Strongly typed, as the product builds."""
    said: list[str] = []

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                said.append(message)

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    assert parser.parse_from_file(str(path)), [parser.get_error(i).desc() for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, target), 0)
    profile = builder.create_optimization_profile()
    free = False
    for i in range(network.num_inputs):
        dims = [int(d) for d in network.get_input(i).shape]
        if -1 in dims:
            free = True
            profile.set_shape(
                network.get_input(i).name, *([[r if d < 0 else d for d in dims] for r in (1, 4096, 65536)])
            )
    if free:
        assert config.add_optimization_profile(profile) >= 0
    plan = builder.build_serialized_network(network, config)
    assert plan is not None, said
    return int(plan.nbytes)


def graphs(path: Path, name: str) -> dict[str, bytes]:
    """FP16 and INT8 form; the ranges do not matter to a builder."""
    keep = kept_by_rule(Graph(path, name))
    ranges = {layer.name: 4.0 for layer in quantisable(Graph(path, name))}
    return {"fp16": cast_fp16(Graph(path, name), keep), "int8": to_int8(Graph(path, name), ranges, keep)}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_small_model_builds_for_every_target(tiny_export: Path, tmp_path: Path, name: str) -> None:
    for precision, data in graphs(tiny_export / "onnx" / f"{name}.onnx", name).items():
        path = tmp_path / f"{precision}.onnx"
        path.write_bytes(data)
        for target in TARGETS:
            assert build(path, target) > 10_000, (precision, target)


def test_build_engine_takes_both_precisions_and_makes_missing_fp16_graphs(tiny_export: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_export, tmp_path / "b")
    args = ["build-engine", str(tmp_path / "b"), "--backend", "tensorrt-rtx", "--compute-capability", "8.6"]
    done = CliRunner().invoke(main, [*args, "--precision", "fp16"], standalone_mode=False)
    assert done.exit_code == 0, done.output
    assert "making them from its golden frames" in done.output
    refused = CliRunner().invoke(main, [*args, "--precision", "int8"], standalone_mode=False)
    assert refused.exit_code == 1 and "edge-ad calibrate int8" in refused.output
    calibrate_int8(Bundle.open(tmp_path / "b"), frames_of_bundle(Bundle.open(tmp_path / "b")), "golden frames")
    done = CliRunner().invoke(main, [*args, "--precision", "int8"], standalone_mode=False)
    assert done.exit_code == 0, done.output
    built = {p.parent.name for p in (tmp_path / "b/engines").rglob("rgb.plan*")}
    assert built == {"tensorrt-rtx-fp16-sm86", "tensorrt-rtx-int8-sm86"}


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["compact", "paper"])
def test_both_presets_build_at_their_own_sizes(tmp_path: Path, preset: str) -> None:
    from benchmarks.precision import random_graphs

    total = dict.fromkeys(("fp32", "fp16", "int8"), 0)
    for name, data in random_graphs(preset).items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(data)
        for precision, made in {"fp32": data, **graphs(path, name)}.items():
            (tmp_path / "now.onnx").write_bytes(made)
            sizes = {build(tmp_path / "now.onnx", target) for target in (TARGETS if precision != "fp32" else ("SM86",))}
            total[precision] += max(sizes)
    assert total["fp16"] < total["fp32"]
    if preset == "paper":  # in the small preset the kernels' own code outweighs its 2 MB of weights (docs/precision.md)
        assert total["fp16"] <= 0.55 * total["fp32"]
        assert total["int8"] <= 0.4 * total["fp32"]
