"""The size of each term of eq. 16 on good parts that were not trained on (METHOD section 6, ``fusion.balance``)."""

from __future__ import annotations

import torch
from torch import Tensor

from edge_ad.models.distance import distance
from edge_ad.models.levels import Levels
from edge_ad.models.mappers import Mappers
from edge_ad.training.levels import over_levels
from edge_ad.training.sampling import PixelSampler

PIXELS_PER_SAMPLE = 2048


@torch.no_grad()
def term_means(
    mappers: Mappers,
    anchors: Tensor | None,
    sampler: PixelSampler,
    seed: int,
    pixels: int = PIXELS_PER_SAMPLE,
    levels: Levels | None = None,
) -> tuple[float, float, float]:
    """Means of Psi_rgb, Psi_3d and Psi_text over good pixels, every sample weighing the same.

    Parameters
    ----------
    mappers : fitted. anchors : (C, D_txt), or None without text (the third mean is then 1).
    sampler : over the held-out samples. pixels : so many pixels of each, drawn without replacement.
    levels : the distances are taken relative to these.
    """
    sums = torch.zeros(3, dtype=torch.float64)
    for batch in sampler.every(pixels, seed):
        rgb = distance(batch.rgb, mappers.points_to_rgb(batch.points))
        points = distance(batch.points, mappers.rgb_to_3d(batch.rgb))
        rgb, points = over_levels(levels, batch, rgb, points)
        sums[0] += rgb.double().mean()
        sums[1] += points.double().mean()
        if anchors is not None and mappers.rgb_to_text is not None and mappers.points_to_text is not None:
            own = anchors[batch.classes]
            plain_rgb, plain_points = batch.for_text
            text = distance(own, mappers.rgb_to_text(plain_rgb)) * distance(own, mappers.points_to_text(plain_points))
            sums[2] += text.double().mean()
        else:
            sums[2] += 1
    means = sums / len(sampler.sources)
    # A term that is 0 everywhere (a toy) is left as it is: dividing by 0 would hide it.
    a, b, c = (float(m) if m > 0 else 1.0 for m in means)
    return a, b, c
