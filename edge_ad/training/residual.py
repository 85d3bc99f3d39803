"""What one modality cannot tell about the other: the covariance that ``rgb.standardize = "residual"`` whitens.

The anomaly map compares a colour feature with what the point feature says about it. Whitened by their own covariance,
the colour features' axes weigh alike whether geometry foretells them or not. Whitened by the covariance of what is left
after the prediction, the distance between a feature and its prediction is a Mahalanobis distance of the residual: an
axis along which good parts agree with the prediction counts more than one along which they scatter.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from edge_ad.presets import Preset
from edge_ad.training.sampling import Batch, PixelSampler, Standard, whitened_again

F64 = NDArray[np.float64]
UNITS = 768
"""Hidden units of the predictor: fixed random ones, so that its last layer has a closed form."""
RIDGE = 1e-3


def residual_covariance(batches: Iterable[Batch], classes: int, seed: int) -> F64:
    """Covariance of the colour features given the point features and the class.

    The predictor is linear in the class, the point features and random GELU units of them, fitted by least squares
    with a small ridge: the same bits on every run, and no training to wait for.

    Parameters
    ----------
    batches : standardised features. classes : how many.

    Returns
    -------
    (D_rgb, D_rgb) float64.
    """
    rng = np.random.default_rng([seed, 3])
    hidden: torch.Tensor | None = None
    gram = cross = total = np.zeros(0)
    count = 0
    for batch in batches:
        y = batch.points.double()
        if hidden is None:
            d = y.shape[1]
            # Unit-variance inputs give units of unit variance; the offsets move their bends apart.
            hidden = torch.from_numpy(rng.standard_normal((d + 1, UNITS)) / np.sqrt(d))
            hidden[-1] *= np.sqrt(d)
            size = classes + d + UNITS
            gram, cross = np.zeros((size, size)), np.zeros((size, batch.rgb.shape[1]))
            total = np.zeros((batch.rgb.shape[1],) * 2)
        one_hot = F.one_hot(batch.classes, classes).double()
        phi = torch.cat([one_hot, y, F.gelu(y @ hidden[:-1] + hidden[-1])], dim=1).numpy()
        x = batch.rgb.double().numpy()
        gram += phi.T @ phi
        cross += phi.T @ x
        total += x.T @ x
        count += len(x)
    scale = float(np.trace(gram)) / len(gram)
    weights = np.linalg.solve(gram + RIDGE * scale * np.eye(len(gram)), cross)
    # |x - phi w|^2 = x'x - 2 w' phi'x + w' phi'phi w, summed without a second pass over the features.
    left = total - weights.T @ cross - cross.T @ weights + weights.T @ gram @ weights
    return np.asarray((left + left.T) / (2 * count))


PIXELS = 400
"""Pixels a sample for the covariance of the residual."""


def whitened_by_residual(preset: Preset, sampler: PixelSampler) -> Standard:
    """``rgb.standardize = "residual"``: colour whitened once more, by what class and point features do not foretell.

    sampler : gives whitened features.
    """
    seed, dim = preset.training.seed, preset.dim_rgb
    scale = preset.rgb.lift / np.sqrt(dim) if preset.rgb.lift > 0 else 1.0
    batches = (Batch(b.rgb[:, :dim] / scale, b.points, b.classes) for b in sampler.every(PIXELS, seed))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the same bits on every run
    try:
        covariance = residual_covariance(batches, len(sampler.class_index), seed)
    finally:
        torch.set_num_threads(threads)
    return whitened_again(sampler.standards[0], covariance, preset.rgb.residual_ridge, preset.rgb.lift)
