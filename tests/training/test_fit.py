"""The whole fit on small frames: bits, resuming, held-out parts, warnings, the model directory."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch

from edge_ad.errors import EdgeAdError
from edge_ad.files import sha256
from edge_ad.presets import CODE
from edge_ad.runtime.point_input import prepare_points
from edge_ad.training.features import Job, Recipe, extract
from edge_ad.training.fit import FitOptions, collapse_warnings, fit
from edge_ad.training.model_dir import load_model
from edge_ad.training.selection import few_frames
from edge_ad.training.trainer import TrainingPlan
from tests.training.tiny import tiny_dataset, tiny_preset

T = TypeVar("T")
PLAN = TrainingPlan(samples_per_step=3, min_steps=30, checkpoint_every_s=0)


class Killed(Exception):
    pass


class KillAt:
    """A ``track`` that stops the training before step ``n``."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, iterable: Iterable[T], total: int | None = None, label: str = "") -> Iterable[T]:
        for i, value in enumerate(iterable):
            if label == "fit" and i == self.n:
                raise Killed
            yield value


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fit")
    fit(tiny_preset(), tiny_dataset(), folder / "model", folder / "cache", FitOptions(plan=PLAN))
    return folder


def test_the_model_reads_back_and_scores(fitted: Path) -> None:
    model = load_model(fitted / "model")
    assert model.class_names == ("hex_nut", "cookie")
    assert [c.prompt for c in model.classes] == ["hex nut", "cookie"]
    assert 0.01 < model.points_scale_m < 0.2
    p = model.provenance
    assert p["training_samples"] == {"hex_nut": 4, "cookie": 4}
    assert (p["held_out_samples"], p["held_out_are_training_samples"]) == (4, False)
    assert (p["steps"], p["skipped_steps"]) == (30, 0)
    assert p["loss_curve"][-1] < p["loss_curve"][0] - 0.1
    frame = tiny_dataset().items[-1].frame()
    sample = model.preprocessor()(frame, "cookie").samples[0]
    point = prepare_points(sample, model.preset.points, model.points_scale_m)
    size = model.preset.geometry.size
    index, weight = np.zeros((size * size, 3), np.int64), np.zeros((size * size, 3), np.float32)
    rows = np.flatnonzero(sample.valid)
    index[rows], weight[rows] = point.interp_index, point.interp_weight
    d = model.detector
    with torch.no_grad():
        tokens = d.tokens(*(torch.from_numpy(a) for a in (sample.rgb, point.groups, point.centers)))
        terms = d.terms(*tokens, torch.from_numpy(index), torch.from_numpy(weight), torch.from_numpy(sample.valid), 1)
        # Held-out good parts: each term is about its balance.
        for key, mean in (("rgb", d.balance[0]), ("3d", d.balance[1])):
            assert terms[key][torch.from_numpy(sample.valid)].mean() == pytest.approx(float(mean), rel=0.25)
        assert d.score(d.anomaly_map(terms, torch.from_numpy(sample.valid))) > 0


def test_statistics_standardise_the_training_tokens(fitted: Path) -> None:
    model = load_model(fitted / "model")
    jobs = [Job(i) for i in tiny_dataset().select(split="train")]
    recipe = Recipe(model.preset, model.scenes, model.points_scale_m, fitted / "cache")
    before = sorted(fitted.glob("cache/*"))
    sources, refused = extract(recipe, jobs)
    assert refused == []
    assert sorted(fitted.glob("cache/*")) == before  # all found, nothing computed anew
    from edge_ad.training.features import load

    tokens = np.concatenate([load(s).point_tokens for s in sources]).astype(np.float64)
    d, lift = model.detector, model.preset.points.lift
    seen = tokens @ d.point_weight.numpy().T + d.point_offset.numpy()
    np.testing.assert_allclose(seen[:, :-CODE].mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(seen[:, :-CODE].std(0), lift / np.sqrt(tokens.shape[1]), rtol=1e-3)
    np.testing.assert_allclose(seen[:, -CODE:], np.eye(CODE)[:1].repeat(len(seen), 0))


def test_two_runs_give_the_same_bits_whatever_the_number_of_processes(fitted: Path, tmp_path: Path) -> None:
    options = FitOptions(plan=PLAN, jobs=2)
    fit(tiny_preset(), tiny_dataset(), tmp_path / "model", tmp_path / "cache", options)
    assert sha256(tmp_path / "model/model.safetensors") == sha256(fitted / "model/model.safetensors")


def test_another_seed_gives_another_model(fitted: Path, tmp_path: Path) -> None:
    preset = tiny_preset(training={"seed": 116})
    fit(preset, tiny_dataset(), tmp_path / "model", tmp_path / "cache", FitOptions(plan=PLAN))
    assert sha256(tmp_path / "model/model.safetensors") != sha256(fitted / "model/model.safetensors")


def test_a_run_that_was_killed_goes_on_to_the_same_bits(fitted: Path, tmp_path: Path) -> None:
    arguments = (tiny_preset(), tiny_dataset(), tmp_path / "model", tmp_path / "cache", FitOptions(plan=PLAN))
    for kill in (11, 7):  # the second run starts at step 11 and dies at 18
        with pytest.raises(Killed):
            fit(*arguments, track=KillAt(kill))
        assert not (tmp_path / "model").exists()
    said: list[str] = []
    fit(*arguments, say=said.append)
    assert any("from step 18 of 30" in line for line in said)
    assert sha256(tmp_path / "model/model.safetensors") == sha256(fitted / "model/model.safetensors")


def test_a_checkpoint_of_another_run_is_not_taken(fitted: Path, tmp_path: Path) -> None:
    options = FitOptions(plan=PLAN)
    cache = tmp_path / "cache"
    with pytest.raises(Killed):
        fit(tiny_preset(), tiny_dataset(), tmp_path / "model", cache, options, track=KillAt(9))
    said: list[str] = []
    other = tiny_preset(training={"learning_rate": 5e-4})
    fit(other, tiny_dataset(), tmp_path / "model", cache, options, say=said.append)
    assert said == []


def test_a_broken_checkpoint_is_one_clear_error_and_fresh_mends_it(tmp_path: Path) -> None:
    arguments = (tiny_preset(), tiny_dataset(), tmp_path / "model", tmp_path / "cache")
    with pytest.raises(Killed):
        fit(*arguments, FitOptions(plan=PLAN), track=KillAt(5))
    (checkpoint,) = (tmp_path / "cache").glob("training-*")
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(EdgeAdError, match="--fresh"):
        fit(*arguments, FitOptions(plan=PLAN))
    fit(*arguments, FitOptions(plan=PLAN, fresh=True))
    assert (tmp_path / "model/model.json").is_file()


def test_frames_without_a_part_are_named_and_left_out(tmp_path: Path) -> None:
    report = fit(
        tiny_preset(),
        tiny_dataset({"cookie": (4, 1)}, broken=1),
        tmp_path / "m",
        tmp_path / "c",
        FitOptions(plan=PLAN),
    )
    assert any("cookie/train/0 is not used" in w for w in report.warnings)
    assert report.provenance["training_samples"] == {"cookie": 3}
    with pytest.raises(EdgeAdError, match="usable"):
        fit(
            tiny_preset(),
            tiny_dataset({"cookie": (2, 1)}, broken=2),
            tmp_path / "m2",
            tmp_path / "c",
            FitOptions(plan=PLAN),
        )


def test_augmentation_makes_a_set_of_one_frame_large_enough(tmp_path: Path) -> None:
    preset = tiny_preset(geometry={"pose": "fixed"})
    options = FitOptions(plan=PLAN, augment=9)
    report = fit(preset, tiny_dataset({"cookie": (1, 0)}), tmp_path / "m", tmp_path / "c", options)
    assert report.provenance["training_samples"] == {"cookie": 9}
    assert report.provenance["held_out_samples"] == 1
    expected = load_model(tmp_path / "m").scenes["cookie"].expected_depth
    assert expected is not None
    assert not expected[2:5, 2:5].any()  # never had depth
    assert expected.mean() > 0.97


def test_a_set_too_small_to_hold_parts_out_says_so(tmp_path: Path) -> None:
    report = fit(tiny_preset(), tiny_dataset({"cookie": (2, 0)}), tmp_path / "m", tmp_path / "c", FitOptions(plan=PLAN))
    assert report.provenance["held_out_are_training_samples"] is True
    assert any("too few parts" in w for w in report.warnings)
    assert any(w.startswith("few good frames to fit on (") and "--augment" in w for w in report.warnings)


def test_frozen_anchors_are_the_mean_prompts_and_tell_classes_apart(tmp_path: Path) -> None:
    from edge_ad.training.prompts import class_prompts
    from edge_ad.training.text import embed_prompts

    preset = tiny_preset(octa={"anchors": "frozen"})
    report = fit(preset, tiny_dataset(), tmp_path / "m", tmp_path / "c", FitOptions(plan=PLAN))
    anchors = load_model(tmp_path / "m").detector.anchors.numpy()
    prompts = embed_prompts(preset, [class_prompts("hex nut"), class_prompts("cookie")])
    np.testing.assert_allclose(anchors, prompts.mean(1), rtol=1e-5, atol=1e-6)
    assert report.cosines is not None
    assert report.cosines[0, 1] < 0.9
    assert not any("collapsed" in w for w in report.warnings)


def test_collapsed_anchors_are_named() -> None:
    cosines = np.array([[1, 0.995, 0.2], [0.995, 1, 0.5], [0.2, 0.5, 1]], np.float32)
    (warning,) = collapse_warnings(("a", "b", "c"), cosines)
    assert "'a' and 'b'" in warning
    assert "0.9950" in warning
    assert "octa.anchors=frozen" in warning
    assert collapse_warnings(("a",), None) == []


def test_a_model_without_text(tmp_path: Path) -> None:
    preset = tiny_preset(mappers={"kind": "cfm"}, text={"encoder": "none"}, octa={"anchors": "frozen"})
    report = fit(preset, tiny_dataset(), tmp_path / "m", tmp_path / "c", FitOptions(plan=PLAN))
    assert report.cosines is None
    assert report.balance[2] == 1.0
    assert not load_model(tmp_path / "m").detector.mappers.has_text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("classes"), "missing or broken field"),
        (lambda d: d.update(schema=99), "update edge-ad"),
        (lambda d: d.update(encoders_sha256="0" * 64), "not those that the model was fitted on"),
        (lambda d: d["classes"].pop(), "wrong shape"),
    ],
)
def test_a_damaged_description_is_one_clear_error(fitted: Path, tmp_path: Path, change: object, message: str) -> None:
    import shutil

    shutil.copytree(fitted / "model", tmp_path / "m")
    text = json.loads((tmp_path / "m/model.json").read_text())
    change(text)  # type: ignore[operator]
    (tmp_path / "m/model.json").write_text(json.dumps(text))
    with pytest.raises(EdgeAdError, match=message):
        load_model(tmp_path / "m")


def test_refusals(fitted: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgeAdError, match="exists already"):
        fit(tiny_preset(), tiny_dataset(), fitted / "model", tmp_path)
    with pytest.raises(EdgeAdError, match="no class gear"):
        fit(tiny_preset(), tiny_dataset(), tmp_path / "m", tmp_path, FitOptions(classes=("gear",)))
    with pytest.raises(EdgeAdError, match="not a model directory"):
        load_model(tmp_path)
    with pytest.raises(EdgeAdError, match="no class 'gear'"):
        load_model(fitted / "model").class_index("gear")


def test_only_classes_of_few_frames_are_told() -> None:
    found = ["gear"] * 20 + ["cap"] * 19 + ["nut"] * 3
    (warning,) = few_frames(found, ["gear", "cap", "nut"])
    assert "(19 of cap, 3 of nut)" in warning
    assert few_frames(found, ["gear"]) == []
