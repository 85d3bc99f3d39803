"""The OpenVINO backend: same answers in float32, close ones in bfloat16, clear refusals."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edge_ad.bundle import Bundle, TensorSpec
from edge_ad.errors import EdgeAdError
from edge_ad.runtime.backends import load_session
from edge_ad.runtime.backends.openvino import _spec
from edge_ad.runtime.detector import Detector
from edge_ad.runtime.stages import Stopwatch
from tests.training.tiny import make_frame

GRAPHS = ("rgb", "points", "tokens", "score")


def test_without_the_package_the_extra_is_named(tiny_export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EdgeAdError, match=r"edge-ad\[openvino\]"):
        load_session(Bundle.open(tiny_export), "rgb", "openvino")


def test_bf16_belongs_to_openvino(tiny_export: Path) -> None:
    with pytest.raises(EdgeAdError, match="use --backend openvino --precision bf16"):
        load_session(Bundle.open(tiny_export), "rgb", "onnxruntime", "bf16")


@pytest.mark.parametrize("names", [["a/Min", "rgb_level"], ["rgb_level", "a/Min"]])
def test_an_output_keeps_its_name_beside_those_of_folded_nodes(names: list[str]) -> None:
    """Max, Min and Exp become one node, whose output has the names of all three, in no order."""
    element = SimpleNamespace(to_dtype=lambda: np.dtype(np.float32))
    fixed = SimpleNamespace(is_static=True, get_length=lambda: 784)
    port = SimpleNamespace(
        get_names=lambda: names,
        get_any_name=lambda: names[0],
        get_partial_shape=lambda: [fixed],
        get_element_type=lambda: element,
    )
    level = TensorSpec("rgb_level", (784,), "float32")
    assert _spec(port, (TensorSpec("rgb_table", (784, 9), "float32"), level)) == level


class TestInstalled:
    """With the package."""

    @pytest.fixture(autouse=True)
    def needs_openvino(self) -> None:
        pytest.importorskip("openvino", reason="the extra openvino is not installed")

    def random_inputs(self, bundle: Bundle, graph: str) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(1)
        out = {}
        for t in bundle.graph(graph).inputs:
            shape = tuple(7 if isinstance(d, str) else d for d in t.shape)
            normal = rng.standard_normal(shape).astype(np.float32) * 0.3
            out[t.name] = np.zeros(shape, np.int64) if t.dtype == "int64" else normal
        return out

    @pytest.mark.parametrize("graph", GRAPHS)
    def test_float32_is_onnxruntimes_answer(self, tiny_export: Path, graph: str) -> None:
        bundle = Bundle.open(tiny_export)
        theirs = load_session(bundle, graph, "onnxruntime", threads=1)
        ours = load_session(bundle, graph, "openvino", threads=1)
        assert ours.inputs == theirs.inputs or {t.name for t in ours.inputs} == {t.name for t in theirs.inputs}
        feed = self.random_inputs(bundle, graph)
        expected, found = theirs.run(feed), ours.run(feed)
        assert set(found) == set(expected)
        for name, value in expected.items():
            assert found[name].dtype == value.dtype and found[name].shape == value.shape
            np.testing.assert_allclose(found[name], value, atol=2e-5 * max(1.0, float(np.abs(value).max())))
        again = ours.run(feed)  # outputs are copies: a second run does not change what the first one gave
        assert all(again[n] is not found[n] and np.array_equal(again[n], found[n]) for n in found)

    def test_several_threads_may_run_it_at_once(self, tiny_export: Path) -> None:
        bundle = Bundle.open(tiny_export)
        session = load_session(bundle, "rgb", "openvino", threads=1)
        assert getattr(session, "concurrent", False)
        feeds = [{"image": v["image"] + i} for i in range(4) for v in [self.random_inputs(bundle, "rgb")]]
        expected = [session.run(f)["rgb_tokens"] for f in feeds]
        wrong: list[int] = []

        def work(i: int) -> None:
            for _ in range(10):
                if not np.array_equal(session.run(feeds[i])["rgb_tokens"], expected[i]):
                    wrong.append(i)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not wrong

    def test_bfloat16_tokens_correlate_with_float32(self, tiny_export: Path) -> None:
        from edge_ad.runtime.backends.openvino import has_bf16

        bundle = Bundle.open(tiny_export)
        if not has_bf16():
            with pytest.raises(EdgeAdError, match="no bfloat16 instructions.*--precision fp32"):
                load_session(bundle, "rgb", "openvino", "bf16")
            pytest.skip("this processor has no bfloat16 instructions")
        exact = Detector(bundle, threads=1, need_threshold=False)
        rough = Detector(bundle, "openvino", "bf16", threads=1, need_threshold=False)
        # The map of this toy says nothing: random encoders answer all parts of a class alike, and the model looks at
        # what is left of that. Of a real model's map benchmarks/openvino_bf16.py and edge-ad tune tell.
        for name in ("cookie", "hex_nut"):
            sample = exact.preprocess(make_frame(name, 2), name).samples[0]
            points = exact.prepare_part(sample, Stopwatch()).points
            feeds = {
                "rgb": {"image": sample.rgb[None]},
                "points": {"groups": points.groups[None], "centers": points.centers[None]},
            }
            for graph, feed in feeds.items():
                (a,), (b,) = (list(d.sessions[graph].run(feed).values()) for d in (exact, rough))
                assert np.corrcoef(a.ravel(), b.ravel())[0, 1] >= 0.9999
                assert not np.array_equal(a, b)  # bfloat16 it was
            assert np.isfinite(rough.score_sample(sample, name).map).all()

    def test_refusals(self, tiny_export: Path, tmp_path: Path) -> None:
        bundle = Bundle.open(tiny_export)
        with pytest.raises(EdgeAdError, match="fp16 with openvino"):
            load_session(bundle, "rgb", "openvino", "fp16")
        with pytest.raises(EdgeAdError, match="0 threads"):
            load_session(bundle, "rgb", "openvino", threads=0)
        with pytest.raises(EdgeAdError, match="no int8 graph"):
            load_session(bundle, "rgb", "openvino", "int8")
        import shutil

        shutil.copytree(tiny_export, tmp_path / "b")
        broken = Bundle.open(tmp_path / "b")
        broken.graph_path("rgb").write_bytes(b"no graph")
        with pytest.raises(EdgeAdError, match="openvino cannot load rgb.onnx"):
            load_session(broken, "rgb", "openvino")
