"""What a model is fitted on: which classes, which frames train, which are held out."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from edge_ad.data.dataset import Dataset
from edge_ad.errors import EdgeAdError
from edge_ad.presets import Preset
from edge_ad.training.features import Job

HELD_OUT_EVERY = 10
"""Without a validation split one frame in so many of each class is kept from training, for the balance."""
FEW = 20
"""Fewer frames of a class than this are told; what variations bring then: benchmarks/few_parts.py."""


def class_names(dataset: Dataset, wanted: Sequence[str]) -> tuple[str, ...]:
    """The classes to fit; all of the data set's when none is wanted by name. EdgeAdError for one that it lacks."""
    unknown = sorted(set(wanted) - set(dataset.classes))
    if unknown:
        raise EdgeAdError(f"{dataset.root}: no class {', '.join(unknown)}", f"one of {', '.join(dataset.classes)}")
    return tuple(n for n in dataset.classes if not wanted or n in wanted)


def split(preset: Preset, dataset: Dataset, names: Sequence[str], augment: int) -> tuple[list[Job], list[Job]]:
    """Frames to train on, and frames held out: the validation split, else a tenth of each class (5 frames and more)."""
    if augment < 0:
        raise EdgeAdError(f"--augment {augment}", "0 or more")
    training: list[Job] = []
    held_out: list[Job] = []
    for name in names:
        items = dataset.select(class_name=name, split="train", defect="good")
        if not items:
            raise EdgeAdError(f"{dataset.root}: class '{name}' has no good training parts", "at least one")
        jobs = [Job(item) for item in items]
        # Round after round of variations, so that the last ones, which may be held out, come from all frames.
        for n in range(augment):
            jobs += [Job(item, _augment_seed(preset.training.seed, item.name, n)) for item in items]
        validation = [Job(i) for i in dataset.select(class_name=name, split="validation", defect="good")]
        if not validation and len(jobs) >= 5:
            keep = len(jobs) - max(1, len(jobs) // HELD_OUT_EVERY)
            jobs, validation = jobs[:keep], jobs[keep:]
        training += jobs
        held_out += validation
    return training, held_out


def _augment_seed(seed: int, name: str, n: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}/{n}".encode()).digest()[:6], "big")


def few_frames(found: Sequence[str], names: Sequence[str]) -> list[str]:
    """A warning where a class has few training frames. found : the class of each frame, variations among them."""
    counts = Counter(found)
    few = ", ".join(f"{counts[n]} of {n}" for n in names if counts[n] < FEW)
    return [f"few good frames to fit on ({few}): --augment N adds N seeded variations of each"] if few else []
