"""From good parts to a model directory: survey, frozen features, training, anchors, balance."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edge_ad import __version__
from edge_ad.data.camera_file import cameras_of
from edge_ad.data.dataset import Dataset
from edge_ad.errors import EdgeAdError
from edge_ad.files import refuse_foreign
from edge_ad.frame import F32
from edge_ad.models.build import assemble
from edge_ad.models.detector import ReferenceDetector
from edge_ad.models.octa import anchor_cosines
from edge_ad.presets import Preset
from edge_ad.training.balance import term_means
from edge_ad.training.conditions import fit_conditions
from edge_ad.training.features import Recipe, Source, Track, extract, silent
from edge_ad.training.levels import fit_levels
from edge_ad.training.model_dir import DESCRIPTION, ClassInfo, write_model
from edge_ad.training.prompts import class_prompts, class_words
from edge_ad.training.rehearsal import FILE as REHEARSAL
from edge_ad.training.rehearsal import collect
from edge_ad.training.residual import whitened_by_residual
from edge_ad.training.sampling import Batch, OfClass, PixelSampler, standards
from edge_ad.training.selection import class_names, few_frames, split
from edge_ad.training.survey import survey
from edge_ad.training.text import embed_prompts
from edge_ad.training.trainer import Learner, Trained, TrainingPlan, deterministic, loss_curve, train

COLLAPSED = 0.99
"""Anchors whose cosine is above this cannot tell their classes apart (METHOD section 4)."""


@dataclass(frozen=True)
class FitOptions:
    """What a person may say beside the preset.

    classes : fit only these; empty: all. augment : so many seeded variations of every training frame.
    jobs : processes that compute features. fresh : ignore a training checkpoint. replace : overwrite ``out``.
    memory_bytes : budget for features in memory. variants : model directories that are copied into ``out``, by name.
    note : goes into the provenance.
    """

    classes: tuple[str, ...] = ()
    augment: int = 0
    jobs: int = 1
    fresh: bool = False
    replace: bool = False
    plan: TrainingPlan = field(default_factory=TrainingPlan)
    memory_bytes: int = 2 << 30
    variants: dict[str, Path] = field(default_factory=dict)
    note: dict[str, str] = field(default_factory=dict)
    checkpoints_dir: Path | None = None


@dataclass(frozen=True)
class FitReport:
    """What ``fit`` did. ``warnings`` are for people; ``cosines`` (C, C) or None without text."""

    out: Path
    classes: tuple[str, ...]
    provenance: dict[str, Any]
    cosines: F32 | None
    balance: tuple[float, float, float]
    warnings: tuple[str, ...]


def fit(
    preset: Preset,
    dataset: Dataset,
    out: Path,
    cache: Path,
    options: FitOptions | None = None,
    *,
    track: Track = silent,
    say: Callable[[str], None] = lambda line: None,
) -> FitReport:
    """Fit one model over all classes of a data set of good parts and write it to ``out``.

    Parameters
    ----------
    cache : folder for frozen features and the training checkpoint; a later run goes on from what lies there.
    track : shows how far a loop is. say : gets a line of news now and then.

    Raises
    ------
    EdgeAdError
        No good training parts, a class without a usable one, prompts that cannot be embedded, ``out`` exists already.
    """
    options = options or FitOptions()
    if out.exists() and not options.replace:
        raise EdgeAdError(f"{out} exists already", "a new folder", "name another one or pass --force")
    refuse_foreign(out, DESCRIPTION if options.replace else "")
    started = time.monotonic()
    names = class_names(dataset, options.classes)
    without = [n for n in names if n not in dataset.rois]
    if preset.geometry.crop == "roi" and without:
        raise EdgeAdError(
            f"{dataset.root}: class {', '.join(without)} has no roi.png",
            'one a class, for geometry.crop = "roi"',
            "put roi.png (white where the part is inspected) into the class's folder",
        )
    classes = tuple(ClassInfo(n, class_words(n)) for n in names)
    prompts = _prompts(preset, classes, options.checkpoints_dir)
    training, held_out = split(preset, dataset, names, options.augment)
    warnings: list[str] = []

    looked = survey(preset, dataset, training, processes=options.jobs, track=track)
    recipe = Recipe(preset, looked.scenes, looked.points_scale_m, cache, options.checkpoints_dir)
    sources, refused = extract(recipe, [*training, *held_out], processes=options.jobs, track=track)
    for name, reason in refused:
        warnings.append(f"{name} is not used: {reason}")
    held_names = {j.key for j in held_out}
    train_sources = [s for s in sources if s.key not in held_names]
    held_sources = [s for s in sources if s.key in held_names]
    for name in names:
        if not any(s.class_name == name for s in train_sources):
            raise EdgeAdError(
                f"class '{name}' has no usable training part"
                + "".join(f" ({n}: {r})" for n, r in refused if n.startswith(name))[:300],
                "at least one good part",
                "check the preset's geometry table, for instance --set geometry.background=none",
            )
    if {s.class_name for s in held_sources} != set(names):
        warnings.append("too few parts to hold any out: the balance is measured on training parts")
        held_sources = train_sources
    warnings += few_frames([s.class_name for s in train_sources], names)
    features_s = time.monotonic() - started

    rgb_standard, point_standard = standards(preset, train_sources)

    if preset.rgb.standardize == "residual":
        before = PixelSampler(
            preset, train_sources, names, rgb_standard, point_standard, memory_bytes=options.memory_bytes
        )
        rgb_standard = whitened_by_residual(preset, before)

    def sampler(of: Sequence[Source], of_class: OfClass | None = None) -> PixelSampler:
        return PixelSampler(
            preset, of, names, rgb_standard, point_standard, memory_bytes=options.memory_bytes, of_class=of_class
        )

    conditions = None
    if preset.mappers.condition == "class":
        with deterministic(1):
            conditions = fit_conditions(
                preset, sampler(train_sources), len(names), range(len(names)), preset.training.seed
            )

    started = time.monotonic()
    checkpoint = cache / f"training-{_run_key(preset, train_sources, prompts, options.plan)}.safetensors"
    if options.fresh:
        checkpoint.unlink(missing_ok=True)
    train_sampler = sampler(train_sources, conditions)
    trained = train(preset, train_sampler, prompts, options.plan, checkpoint=checkpoint, track=track)
    training_s = time.monotonic() - started
    if trained.resumed_at:
        say(f"training went on from step {trained.resumed_at} of {len(trained.losses)} ({checkpoint})")
    if trained.skipped:
        warnings.append(f"{trained.skipped} of {len(trained.losses)} steps skipped: gradients that were not finite")

    with torch.no_grad():
        anchors = trained.learner.anchors()
    cosines = None if anchors is None else anchor_cosines(anchors).numpy()
    warnings += collapse_warnings(names, cosines)
    mappers, seed = trained.learner.mappers, preset.training.seed
    levels = None
    if preset.fusion.level == "predicted":
        levels = fit_levels(preset, mappers, _draw(preset, train_sampler, options.plan, seed + 1))
    balance = (1.0, 1.0, 1.0)
    if preset.fusion.balance == "train-mean":
        balance = term_means(mappers, anchors, sampler(held_sources, conditions), seed, levels=levels)

    detector = _detector(preset, trained.learner, anchors, balance, len(names), options.checkpoints_dir)
    if detector.levels is not None and levels is not None:
        detector.levels.load_state_dict(levels.state_dict())
    if detector.conditions is not None and conditions is not None:
        detector.conditions.load_state_dict(conditions.state_dict())
    detector.rgb_weight.copy_(torch.from_numpy(rgb_standard.weight))
    detector.rgb_offset.copy_(torch.from_numpy(rgb_standard.offset))
    detector.point_weight.copy_(torch.from_numpy(point_standard.weight))
    detector.point_offset.copy_(torch.from_numpy(point_standard.offset))
    provenance = _provenance(preset, dataset, train_sources, held_sources, trained, options, cosines)
    provenance["seconds"] = {"features": round(features_s, 1), "training": round(training_s, 1)}
    provenance["refused_frames"] = [n for n, _ in refused]
    provenance |= options.note
    if cameras := cameras_of(dataset.root):
        provenance["cameras"] = cameras
    write_model(
        out,
        detector,
        classes,
        looked.points_scale_m,
        looked.scenes,
        provenance,
        checkpoints_dir=options.checkpoints_dir,
        variants=options.variants,
        extra={REHEARSAL: collect(train_sampler, trained.learner.octa, preset.training.seed).to_bytes()},
        replace=options.replace,
    )
    return FitReport(out, names, provenance, cosines, balance, tuple(warnings))


def _draw(preset: Preset, sampler: PixelSampler, plan: TrainingPlan, seed: int) -> Callable[[int], Batch]:
    """Step number -> batch of training pixels, other ones than the mappers' training drew."""
    return lambda step: sampler.step(step, plan.samples_per_step, preset.training.pixels_per_step, seed)


def collapse_warnings(names: Sequence[str], cosines: F32 | None) -> list[str]:
    """One line for every pair of classes whose anchors are the same for all purposes."""
    if cosines is None:
        return []
    return [
        f"the anchors of '{names[i]}' and '{names[j]}' have collapsed (cosine {cosines[i, j]:.4f}, above {COLLAPSED}): "
        "the text term cannot tell them apart; try --set octa.anchors=frozen"
        for i in range(len(names))
        for j in range(i + 1, len(names))
        if cosines[i, j] > COLLAPSED
    ]


def _prompts(preset: Preset, classes: Sequence[ClassInfo], checkpoints_dir: Path | None) -> F32 | None:
    if preset.mappers.kind == "cfm":
        return None
    return embed_prompts(preset, [class_prompts(c.prompt) for c in classes], checkpoints_dir)


def _run_key(preset: Preset, sources: Sequence[Source], prompts: F32 | None, plan: TrainingPlan) -> str:
    """Names everything that the training's result depends on, so that a checkpoint is never taken for another's."""
    text = {
        "preset": {k: v for k, v in preset.to_dict().items() if k not in ("fusion", "limits", "name")},
        "sources": [(s.path.name, s.number, s.class_name) for s in sources],
        "prompts": None if prompts is None else hashlib.sha256(prompts.tobytes()).hexdigest(),
        "plan": {k: v for k, v in asdict(plan).items() if k != "checkpoint_every_s"},
        "versions": (__version__, torch.__version__, np.__version__),
    }
    return hashlib.sha256(json.dumps(text, sort_keys=True).encode()).hexdigest()[:16]


def _detector(
    preset: Preset,
    learner: Learner,
    anchors: Tensor | None,
    balance: tuple[float, float, float],
    classes: int,
    checkpoints_dir: Path | None,
) -> ReferenceDetector:
    detector = ReferenceDetector(preset, *assemble(preset, checkpoints_dir), classes).eval().requires_grad_(False)
    detector.mappers.load_state_dict(learner.mappers.state_dict())
    if anchors is not None:
        detector.anchors.copy_(anchors)
    detector.balance.copy_(torch.tensor(balance))
    return detector


def _provenance(
    preset: Preset,
    dataset: Dataset,
    training: Sequence[Source],
    held_out: Sequence[Source],
    trained: Trained,
    options: FitOptions,
    cosines: F32 | None,
) -> dict[str, Any]:
    counts = Counter(s.class_name for s in training)
    return {
        "data": dataset.root.resolve().name,
        "layout": dataset.layout,
        "training_samples": dict(counts),
        "held_out_samples": len(held_out),
        "held_out_are_training_samples": held_out is training,
        "augment": options.augment,
        "seed": preset.training.seed,
        "steps": len(trained.losses),
        "skipped_steps": trained.skipped,
        "samples_per_step": options.plan.samples_per_step,
        "threads": options.plan.threads,
        "loss_curve": loss_curve(trained.losses),
        "anchor_cosines": None if cosines is None else [[round(float(v), 6) for v in row] for row in cosines],
        "versions": {"edge_ad": __version__, "torch": torch.__version__, "numpy": np.__version__},
    }
