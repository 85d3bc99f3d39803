"""A bundle with one class more: new token and score graphs, anchors and golden answers; the encoders' files stay."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from edge_ad.bundle import Bundle, GoldenFrame
from edge_ad.bundle.manifest import MANIFEST, manifest_from_dict, seal
from edge_ad.data.dataset import Dataset, Item
from edge_ad.errors import EdgeAdError
from edge_ad.export.bundle import export_bundle
from edge_ad.files import read_json, sha256, sweep, take_place, temporary, write_json
from edge_ad.frame import Bool, Frame
from edge_ad.training.model_dir import LoadedModel

ENCODERS = ("rgb", "points")


@contextmanager
def enlarged_bundle(
    bundle: Bundle,
    model: LoadedModel,
    dataset: Dataset,
    name: str,
    *,
    keep_limits: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Callable[[], Bundle]]:
    """Prepare the bundle of an enlarged model beside the old one.

    Graphs of other precisions stay for the encoders alone; those of the tokens and scores have to be made again.

    Parameters
    ----------
    bundle : of the model before. model : with the new class. dataset : good parts of the class ``name``.
    keep_limits : keep the old classes' thresholds, though the mappers changed a little.

    Yields
    ------
    A function that puts the new bundle in the old one's place; not called, nothing has happened.

    Raises
    ------
    EdgeAdError
        The bundle is not this model's, is packed, carries variants, or the exported graphs differ from the reference.
    """
    check(bundle, model.class_names[:-1])
    sweep(bundle.path.parent, bundle.path.name)
    draft = temporary(bundle.path)
    shutil.rmtree(draft, ignore_errors=True)
    try:
        frames = [g for g in bundle.golden() if not g.defect]
        data = Dataset(dataset.root, "golden", (*map(_item, frames), *dataset.select(class_name=name, defect="good")))
        export_bundle(model, draft, data, golden=len(frames) + 2, say=say)
        _keep(bundle, draft, keep_limits)
        Bundle.open(draft)
        yield partial(_place, draft, bundle)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def check(bundle: Bundle, classes: tuple[str, ...]) -> None:
    """Refuse a bundle that cannot take one class more; before minutes are spent on training it."""
    bundle.writable("no class can be added")
    if bundle.class_names != classes:
        raise EdgeAdError(
            f"{bundle.where} knows {', '.join(bundle.class_names)}",
            f"the model's classes: {', '.join(classes)}",
            "export the model again",
        )
    if bundle.variants != ("base",):
        raise EdgeAdError(
            f"{bundle.where} carries the variants {', '.join(bundle.variants[1:])}",
            "one without: each has mappers of its own",
            "fit all classes together: edge-ad fit --variants",
        )


def drift(before: list[GoldenFrame], after: Bundle) -> float:
    """Largest relative change of the old classes' scores on their good golden frames."""
    scores = {(g.class_name, g.frame.colour.tobytes()): g.score for g in after.golden() if not g.defect}
    changes = [
        abs(scores[key] / g.score - 1)
        for g in before
        if not g.defect and (key := (g.class_name, g.frame.colour.tobytes())) in scores and g.score > 0
    ]
    return max(changes, default=0.0)


def _item(golden: GoldenFrame) -> Item:
    def truth() -> Bool | None:
        return None

    def frame() -> Frame:
        return golden.frame

    return Item(
        name=f"{golden.class_name}/golden/{golden.name}",
        class_name=golden.class_name,
        split="validation",
        defect="good",
        source=Path(golden.name),
        read_frame=frame,
        read_truth=truth,
    )


def _keep(old: Bundle, draft: Path, keep_limits: bool) -> None:
    """Carry over what the new class does not change: encoders in every precision, scenes, engines, limits."""
    values: dict[str, Any] = read_json(draft / MANIFEST)
    before = old.manifest.to_dict()
    files: dict[str, str] = values["files"]
    encoders = {Path(old.graph(g).file).name for g in ENCODERS}
    for name in before["files"]:
        path = Path(name)
        if (path.parts[0] == "onnx" and path.name in encoders) or path.parts[0] == "scenes":
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(old.path / name, draft / name)
            files[name] = sha256(draft / name)
    for graph in ENCODERS:
        values["graphs"][graph] = before["graphs"][graph]
    values["name"] = before["name"]
    if keep_limits:
        values["thresholds"] = before["thresholds"]
    if (old.path / "engines").is_dir():
        shutil.copytree(old.path / "engines", draft / "engines")
    manifest = manifest_from_dict(values, f"bundle {draft}")
    write_json(draft / MANIFEST, seal(manifest.to_dict()))


def _place(draft: Path, old: Bundle) -> Bundle:
    take_place(draft, old.path)
    return dataclasses.replace(Bundle.open(old.path), archive=None)
