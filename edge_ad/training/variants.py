"""Fit a model and its variants: the same data and classes, mappers fitted anew for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from edge_ad.bundle.manifest import PRECISIONS
from edge_ad.bundle.variants import check_name
from edge_ad.data.dataset import Dataset
from edge_ad.errors import EdgeAdError
from edge_ad.files import refuse_foreign
from edge_ad.presets import Preset
from edge_ad.presets.variants import vary
from edge_ad.training.features import Track, silent
from edge_ad.training.fit import FitOptions, FitReport, fit
from edge_ad.training.model_dir import DESCRIPTION, VARIANTS


def fit_with_variants(
    preset: Preset,
    dataset: Dataset,
    out: Path,
    cache: Path,
    options: FitOptions,
    variants: Mapping[str, Mapping[str, str]],
    *,
    track: Track = silent,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[FitReport, dict[str, FitReport]]:
    """Fit the variants, then the base model, and write them all to ``out`` in one go.

    Parameters
    ----------
    variants : name -> dials (:mod:`edge_ad.presets.variants`).

    Returns
    -------
    The report of the base model, and that of each variant. Variants that were fitted before the run was cut off are
    fitted from their cached features and training checkpoints.
    """
    if out.exists() and not options.replace:
        raise EdgeAdError(f"{out} exists already", "a new folder", "name another one or pass --force")
    refuse_foreign(out, DESCRIPTION if options.replace else "")
    presets = {}
    for name, dials in variants.items():
        check_name(name, PRECISIONS, "--variants")
        presets[name] = vary(preset, dials, where=f"variant {name}")
        if presets[name].to_dict() == preset.to_dict():
            raise EdgeAdError(f"variant {name} is the preset itself", "a dial that differs from it")
    reports: dict[str, FitReport] = {}
    folders: dict[str, Path] = {}
    for name, changed in presets.items():
        say(f"variant {name}: {', '.join(f'{k}={v}' for k, v in variants[name].items())}")
        folder = cache / VARIANTS / name
        note = ", ".join(f"{k}={v}" for k, v in variants[name].items())
        own = replace(options, replace=True, note={"variant": name, "changes": note})
        reports[name] = fit(changed, dataset, folder, cache, own, track=track, say=say)
        folders[name] = folder
    if folders:
        say("the base model")
    base = fit(preset, dataset, out, cache, replace(options, variants=folders), track=track, say=say)
    return base, reports
