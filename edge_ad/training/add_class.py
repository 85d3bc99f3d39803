"""A further class for a fitted model: new parts beside rehearsed features of the old classes.

The encoders, the standardisation, the point scale, the balance and the old classes' anchors and conditions stay as they
are; the new class's anchor comes from its prompts through the adaptor as it was fitted, its condition from its parts.
The mappers are trained on, each step on as many pixels of the new class as on rehearsed ones of all old classes; the
expected distances are fitted anew on both. So the token and score graphs change, the encoders' graphs and their engines
do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edge_ad.data.dataset import Dataset
from edge_ad.errors import EdgeAdError
from edge_ad.models.condition import Conditions
from edge_ad.models.detector import ReferenceDetector
from edge_ad.models.mappers import Mappers
from edge_ad.models.octa import anchor_cosines, frozen_anchors
from edge_ad.runtime.preprocess import Scene
from edge_ad.training.conditions import fit_conditions
from edge_ad.training.features import Job, Recipe, Track, extract, silent
from edge_ad.training.fit import collapse_warnings
from edge_ad.training.levels import fit_levels
from edge_ad.training.model_dir import ClassInfo, LoadedModel, write_model
from edge_ad.training.prompts import class_prompts, class_words
from edge_ad.training.rehearsal import FILE, Rehearsal, collect, read_rehearsal
from edge_ad.training.sampling import Batch, PixelSampler, Standard, joined, relative
from edge_ad.training.survey import survey
from edge_ad.training.text import embed_prompts
from edge_ad.training.trainer import cosine, deterministic

RATE_SHARE = 0.3
"""Learning rate, as a share of the preset's: the mappers are near their goal already."""


@dataclass(frozen=True)
class AddOptions:
    """steps : of training. samples_per_step : parts of the new class in each. rehearse : False forgets (for
    comparison only). jobs, threads : processes for features, threads for training."""

    steps: int = 400
    samples_per_step: int = 8
    rehearse: bool = True
    jobs: int = 1
    threads: int = 1
    checkpoints_dir: Path | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "samples_per_step", "threads"):
            if getattr(self, name) < 1:
                raise EdgeAdError(f"{name} is {getattr(self, name)}", "at least 1")


@dataclass(frozen=True)
class Added:
    """The enlarged model and its parts. ``old_before``, ``old_after``: the loss (eq. 9-11) on the rehearsed pixels;
    ``new_before``, ``new_after``: on the new class's. ``warnings`` are for people."""

    detector: ReferenceDetector
    classes: tuple[ClassInfo, ...]
    scenes: dict[str, Scene]
    rehearsal: Rehearsal
    provenance: dict[str, Any]
    old_before: float
    old_after: float
    new_before: float
    new_after: float
    warnings: tuple[str, ...] = field(default=())


def add_class(
    model: LoadedModel,
    dataset: Dataset,
    name: str,
    cache: Path,
    options: AddOptions | None = None,
    *,
    track: Track = silent,
    say: Callable[[str], None] = lambda line: None,
) -> Added:
    """Fit one more class.

    Parameters
    ----------
    dataset : holds good training parts of the class ``name``. cache : folder for frozen features.

    Raises
    ------
    EdgeAdError
        The class is known already, has no usable part, or the model keeps no features of its old classes.
    """
    options = options or AddOptions()
    preset = model.preset
    if name in model.class_names:
        raise EdgeAdError(f"{model.path} knows the class '{name}' already", "a new class", "fit anew to relearn it")
    items = dataset.select(class_name=name, split="train", defect="good")
    if not items:
        raise EdgeAdError(
            f"{dataset.root}: class '{name}' has no good training parts", f"one of {', '.join(dataset.classes)}"
        )
    old = read_rehearsal(model.path, preset, model.class_names)
    anchors, info, warnings = _anchors(model, name, old, options.checkpoints_dir)
    jobs = [Job(item) for item in items]
    scene = survey(preset, dataset, jobs, processes=options.jobs, track=track).scenes[name]
    scenes = {**model.scenes, name: scene}
    recipe = Recipe(preset, scenes, model.points_scale_m, cache, options.checkpoints_dir)
    sources, refused = extract(recipe, jobs, processes=options.jobs, track=track)
    warnings += [f"{n} is not used: {reason}" for n, reason in refused]
    if not sources:
        raise EdgeAdError(
            f"class '{name}' has no usable training part" + "".join(f" ({n}: {r})" for n, r in refused)[:300],
            "at least one good part",
        )
    classes = (*model.classes, info)
    names = [c.name for c in classes]
    standards = (
        Standard(model.detector.rgb_weight.numpy(), model.detector.rgb_offset.numpy()),
        Standard(model.detector.point_weight.numpy(), model.detector.point_offset.numpy()),
    )
    conditions = _conditions(model, PixelSampler(preset, sources, names, *standards), len(names))
    sampler = PixelSampler(preset, sources, names, *standards, of_class=conditions)
    new = collect(sampler, None, preset.training.seed)
    detector = _enlarged(model, anchors, conditions, len(classes))
    before = _loss_on(detector, old, anchors), _loss_on(detector, new, anchors)
    say(f"training on {len(sources)} parts of {name} and {len(old.classes)} rehearsed pixels")
    _train(detector, sampler, old, anchors, options, track)
    after = _loss_on(detector, old, anchors), _loss_on(detector, new, anchors)
    note = {"class": name, "data": dataset.root.resolve().name, "parts": len(sources), "steps": options.steps}
    provenance = {**model.provenance, "added": [*model.provenance.get("added", []), note]}
    return Added(
        detector,
        classes,
        scenes,
        old.joined(new),
        provenance,
        before[0],
        after[0],
        before[1],
        after[1],
        tuple(warnings),
    )


def write_added(path: Path, added: Added, model: LoadedModel, checkpoints_dir: Path | None = None) -> None:
    """Write the enlarged model in the place of the old one, whole or not at all."""
    write_model(
        path,
        added.detector,
        added.classes,
        model.points_scale_m,
        added.scenes,
        added.provenance,
        checkpoints_dir=checkpoints_dir,
        extra={FILE: added.rehearsal.to_bytes()},
        replace=True,
    )


@torch.no_grad()
def _anchors(
    model: LoadedModel, name: str, old: Rehearsal, checkpoints_dir: Path | None
) -> tuple[Tensor | None, ClassInfo, list[str]]:
    """All anchors (C + 1, D_txt), the old rows untouched; None for a model without text."""
    info = ClassInfo(name, class_words(name))
    if not model.detector.mappers.has_text:
        return None, info, []
    prompts = torch.from_numpy(embed_prompts(model.preset, [class_prompts(info.prompt)], checkpoints_dir))
    if model.preset.octa.anchors == "learned":
        if old.octa is None:
            raise EdgeAdError(f"{model.path}: no adaptor in {FILE}", "one, for learned anchors", "fit anew")
        own = old.octa(prompts)
    else:
        own = frozen_anchors(prompts)
    anchors = torch.cat([model.detector.anchors, own])
    names = [*model.class_names, name]
    return anchors, info, collapse_warnings(names, anchor_cosines(anchors).numpy())


def _conditions(model: LoadedModel, sampler: PixelSampler, count: int) -> Conditions | None:
    """The old classes' conditions, and the new class's, the last one; None for a model without."""
    if model.detector.conditions is None:
        return None
    seed = model.preset.training.seed
    with deterministic(1):
        made = fit_conditions(model.preset, sampler, count, [count - 1], seed)
    for name, old in model.detector.conditions.state_dict().items():
        made.get_buffer(name)[: count - 1] = old
    return made


def _enlarged(
    model: LoadedModel, anchors: Tensor | None, conditions: Conditions | None, count: int
) -> ReferenceDetector:
    """The model with room for one class more."""
    detector = ReferenceDetector(model.preset, model.detector.rgb_encoder, model.detector.point_encoder, count)
    state = model.detector.trained_state()
    state["anchors"] = detector.anchors.clone() if anchors is None else anchors
    if conditions is not None:
        state |= {f"conditions.{name}": value for name, value in conditions.state_dict().items()}
    detector.load_trained(state, where=str(model.path))
    return detector.eval()


def _loss(mappers: Mappers, batch: Batch, anchors: Tensor | None) -> Tensor:
    """Eq. 9-11 with fixed anchors."""
    total = (1 - cosine(mappers.rgb_to_3d(batch.rgb), batch.points)).mean() + (
        1 - cosine(mappers.points_to_rgb(batch.points), batch.rgb)
    ).mean()
    if anchors is not None and mappers.rgb_to_text is not None and mappers.points_to_text is not None:
        own = anchors[batch.classes]
        rgb, points = batch.for_text
        total = total + (1 - cosine(mappers.rgb_to_text(rgb), own)).mean()
        total = total + (1 - cosine(mappers.points_to_text(points), own)).mean()
    return total


def _rehearsed(pixels: Rehearsal, conditions: Conditions | None, rows: Tensor | slice = slice(None)) -> Batch:
    return relative(pixels.rgb[rows], pixels.points[rows], pixels.classes[rows], conditions)


@torch.no_grad()
def _loss_on(detector: ReferenceDetector, pixels: Rehearsal, anchors: Tensor | None) -> float:
    return float(_loss(detector.mappers, _rehearsed(pixels, detector.conditions), anchors))


def _train(
    detector: ReferenceDetector,
    sampler: PixelSampler,
    old: Rehearsal,
    anchors: Tensor | None,
    options: AddOptions,
    track: Track,
) -> None:
    """Train the mappers in place, then the levels; what a step draws depends on the seed and its number alone."""
    preset, mappers = detector.preset, detector.mappers
    rate, seed = RATE_SHARE * preset.training.learning_rate, preset.training.seed
    half = max(1, preset.training.pixels_per_step // 2)

    def new_pixels(step: int) -> Batch:
        return sampler.step(step, options.samples_per_step, half, seed)

    def old_pixels(step: int) -> Batch:
        draw = torch.Generator().manual_seed((seed << 32) + step)
        rows = torch.randint(len(old.classes), (half,), generator=draw)
        return _rehearsed(old, detector.conditions, rows)

    parameters = [p.requires_grad_(True) for p in mappers.parameters()]
    adam = torch.optim.Adam(parameters, lr=rate)
    with deterministic(options.threads):
        for step in track(range(options.steps), options.steps, "add-class"):
            for group in adam.param_groups:
                group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / options.steps))
            loss = _loss(mappers, new_pixels(step), anchors)
            if options.rehearse:
                loss = loss + _loss(mappers, old_pixels(step), anchors)
            adam.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, 10.0, error_if_nonfinite=True)
            adam.step()
    mappers.requires_grad_(False)
    if detector.levels is not None:

        def both(step: int) -> Batch:
            return joined([old_pixels(options.steps + step), new_pixels(options.steps + step)])

        detector.levels.load_state_dict(fit_levels(preset, mappers, both, threads=options.threads).state_dict())
