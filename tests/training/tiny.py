"""A data set of small frames and a preset of small encoders, so that a whole fit takes about a second."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from edge_ad.data.dataset import Dataset, Item
from edge_ad.frame import Bool, Frame, Intrinsics
from edge_ad.presets import Preset, load_preset, preset_from_dict

HEIGHT, WIDTH = 60, 72


def tiny_preset(**tables: dict[str, object]) -> Preset:
    """The compact preset with small random encoders; ``tables`` override single fields."""
    values = load_preset("compact").to_dict()
    values["name"] = "tiny"
    small: dict[str, dict[str, object]] = {
        "geometry": {"size": 64, "ransac_iterations": 30, "crop": "part"},
        "rgb": {
            "checkpoint": "random",
            "taps": [2],
            "grid": 8,
            "standardize": "whiten",
            "lift": 1.0,
            "ridge": 1e-2,
            "residual_ridge": 1.0,
        },  # eight parts tell little about small variances
        "points": {
            "checkpoint": "random",
            "groups": 24,
            "group_size": 8,
            "stride": 2,
            "dim": 8,
            "depth": 2,
            "heads": 2,
            "taps": [0, 1],
            "widths": [4, 8, 8],
            "standardize": "channel",
            "ridge": 0.3,
            "lift": 1.0,
        },
        "mappers": {"hidden": 16},
        "octa": {"anchors": "frozen", "experts": 2, "top_k": 1, "hidden_ratio": 1},
        "fusion": {"sigma": 2.5, "rim": 2, "spread": 2},
        "limits": {"min_valid": 20},
        "training": {"epochs": 2, "pixels_per_step": 64, "learning_rate": 1e-3},
    }
    for name in {*small, *tables}:
        values[name] = {**values[name], **small.get(name, {}), **tables.get(name, {})}
    return preset_from_dict(values)


def make_frame(class_name: str, number: int) -> Frame:
    """A part on a plane 0.4 m away: a box (``hex_nut``) or a dome (``cookie``); ``number`` < 0: an empty plane."""
    rng = np.random.default_rng([abs(number), len(class_name)])
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    z = np.full((HEIGHT, WIDTH), 0.4, np.float32)
    cy, cx = HEIGHT / 2 + rng.uniform(-3, 3), WIDTH / 2 + rng.uniform(-3, 3)
    radius = np.hypot(y - cy, x - cx)
    if class_name == "cookie":
        height, colour = np.clip(0.03 * (1 - (radius / 16) ** 2), 0, None), (170, 120, 70)
    else:
        height, colour = np.where(np.maximum(abs(y - cy), abs(x - cx)) < 13, 0.02, 0.0), (90, 95, 110)
    height = height * (number >= 0)
    z = z - height.astype(np.float32) + rng.normal(0, 2e-4, z.shape).astype(np.float32)
    picture = np.where(height[..., None] > 0.005, colour, (40, 60, 45)) + rng.normal(0, 5, (HEIGHT, WIDTH, 3))
    depth = np.rint(z * 1e4).astype(np.uint16)
    depth[2:5, 2:5] = 0
    return Frame(
        colour=np.clip(picture, 0, 255).astype(np.uint8),
        depth=depth,
        depth_scale_m=1e-4,
        intrinsics=Intrinsics(WIDTH, HEIGHT, 80.0, 80.0, WIDTH / 2, HEIGHT / 2),
        name=f"{class_name}/{number}",
        class_name=class_name,
    )


def _no_truth() -> Bool | None:
    return None


def tiny_dataset(counts: dict[str, tuple[int, int]] | None = None, *, broken: int = 0) -> Dataset:
    """``counts``: class -> (training parts, validation parts). The first ``broken`` training frames hold no part."""
    counts = counts or {"hex_nut": (4, 2), "cookie": (4, 2)}
    items = []
    for name, (train, validation) in counts.items():
        for i in range(train + validation):
            split = "train" if i < train else "validation"
            number = -1 - i if i < broken else i
            items.append(
                Item(
                    name=f"{name}/{split}/{i}",
                    class_name=name,
                    split=split,
                    defect="good",
                    source=Path(f"{name}{i}.png"),
                    read_frame=partial(make_frame, name, number),
                    read_truth=_no_truth,
                )
            )
    return Dataset(Path("tiny"), "recordings", tuple(items))
