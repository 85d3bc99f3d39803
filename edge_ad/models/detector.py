"""The whole method for one sample, literally as METHOD sections 2, 3 and 6 write it: every pixel, every layer.

Slow on purpose. Training reads its tokens, and the restructured form that the device runs is tested against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edge_ad.errors import EdgeAdError
from edge_ad.models.checkpoints import load_exact
from edge_ad.models.condition import Conditions
from edge_ad.models.distance import distance, image_score, smooth, smooth_over_valid
from edge_ad.models.interpolate import bilinear, three_nearest
from edge_ad.models.levels import Levels
from edge_ad.models.mappers import Mappers
from edge_ad.presets import Preset

ENCODERS = ("rgb_encoder.", "point_encoder.")


@dataclass(frozen=True)
class PixelFeatures:
    """Measured and mapped features of all P = S*S pixels; the text pair is None without text.

    All but the text pair are relative to the class where ``mappers.condition`` says so.
    """

    rgb: Tensor
    points: Tensor
    rgb_to_3d: Tensor
    points_to_rgb: Tensor
    rgb_to_text: Tensor | None
    points_to_text: Tensor | None


class ReferenceDetector(nn.Module):
    """Encoders, mappers, statistics and anchors of one fitted model.

    Buffers
    -------
    rgb_weight (D'_rgb, D_rgb), rgb_offset (D'_rgb,), point_weight, point_offset : standardisation of the tokens, an
        affine map; identity where the preset says no.
    anchors (C, D_txt) : one text anchor a class.
    balance (3,) : mean of Psi_rgb, Psi_3d and Psi_text on held-out good pixels; ones with ``balance = "none"``.
    """

    rgb_weight: Tensor
    rgb_offset: Tensor
    point_weight: Tensor
    point_offset: Tensor
    anchors: Tensor
    balance: Tensor

    def __init__(self, preset: Preset, rgb_encoder: nn.Module, point_encoder: nn.Module, classes: int) -> None:
        super().__init__()
        if classes < 1:
            raise EdgeAdError(f"{classes} classes", "at least one")
        self.preset = preset
        self.rgb_encoder = rgb_encoder
        self.point_encoder = point_encoder
        self.mappers = Mappers(preset)
        self.levels = Levels(preset) if preset.fusion.level == "predicted" else None
        self.register_buffer("rgb_weight", torch.eye(preset.feature_rgb, preset.dim_rgb))
        self.register_buffer("rgb_offset", torch.zeros(preset.feature_rgb))
        self.register_buffer("point_weight", torch.eye(preset.feature_points, preset.dim_points))
        self.register_buffer("point_offset", torch.zeros(preset.feature_points))
        self.conditions: Conditions | None = None
        if preset.mappers.condition == "class":
            self.conditions = Conditions(classes, preset.feature_rgb, preset.feature_points)
        self.register_buffer("anchors", torch.zeros(classes, preset.text.dim))
        self.register_buffer("balance", torch.ones(3))

    def train(self, mode: bool = True) -> ReferenceDetector:
        """Training mode for the mappers alone; the frozen encoders stay in eval mode."""
        super().train(mode)
        self.rgb_encoder.eval()
        self.point_encoder.eval()
        return self

    def trained_state(self) -> dict[str, Tensor]:
        """What fitting produced (mappers, statistics, anchors, balance): the state dict without the encoders."""
        return {k: v.contiguous() for k, v in self.state_dict().items() if not k.startswith(ENCODERS)}

    def load_trained(self, state: Mapping[str, Tensor], where: str) -> None:
        """Read back :meth:`trained_state`; EdgeAdError when it does not fit this preset and class count."""
        frozen = {k: v for k, v in self.state_dict().items() if k.startswith(ENCODERS)}
        load_exact(self, {**frozen, **state}, where=where)

    def raw_tokens(self, rgb: Tensor, groups: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
        """Encoder outputs before standardisation; arguments as :meth:`tokens`."""
        return self.rgb_encoder(rgb[None])[0], self.point_encoder(groups[None], centers[None])[0]

    def tokens(self, rgb: Tensor, groups: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised tokens of one sample.

        rgb : (3,S,S) float32, ImageNet-normalised. groups : (G,K,3), each minus its centre; centers : (G,3); both
        already in the unit that ``points.normalize`` asks for. Returns (T,D_rgb) and (G,D_3d).
        """
        rgb_tokens, point_tokens = self.raw_tokens(rgb, groups, centers)
        return (
            rgb_tokens @ self.rgb_weight.T + self.rgb_offset,
            point_tokens @ self.point_weight.T + self.point_offset,
        )

    def of_class(self, rgb: Tensor, points: Tensor, class_index: int) -> tuple[Tensor, Tensor]:
        """Standardised features (..., D) of both modalities, relative to the class (``mappers.condition``)."""
        if self.conditions is None:
            return rgb, points
        own: tuple[Tensor, Tensor] = self.conditions(rgb, points, class_index)
        return own

    def pixel_features(
        self,
        rgb_tokens: Tensor,
        point_tokens: Tensor,
        interp_index: Tensor,
        interp_weight: Tensor,
        class_index: int = 0,
    ) -> PixelFeatures:
        """Interpolate both token sets to all pixels and map them; arguments as :meth:`terms`."""
        shared_rgb = bilinear(rgb_tokens, self.preset.geometry.size)
        shared_points = three_nearest(point_tokens, interp_index, interp_weight)
        if shared_rgb.shape[0] != shared_points.shape[0]:
            raise EdgeAdError(
                f"interpolation rows for {shared_points.shape[0]} pixels", f"{shared_rgb.shape[0]}, one a pixel"
            )
        m = self.mappers
        rgb, points = self.of_class(shared_rgb, shared_points, class_index)
        return PixelFeatures(
            rgb,
            points,
            m.rgb_to_3d(rgb),
            m.points_to_rgb(points),
            None if m.rgb_to_text is None else m.rgb_to_text(shared_rgb),
            None if m.points_to_text is None else m.points_to_text(shared_points),
        )

    def terms(
        self,
        rgb_tokens: Tensor,
        point_tokens: Tensor,
        interp_index: Tensor,
        interp_weight: Tensor,
        valid: Tensor,
        class_index: int,
    ) -> dict[str, Tensor]:
        """The distances of eq. 12-14, each an (S,S) map, 0 at invalid pixels.

        rgb_tokens : (T,D_rgb), point_tokens : (G,D_3d), from :meth:`tokens`. interp_index : (P,3) int64,
        interp_weight : (P,3), P = S*S row-major; rows of invalid pixels may be index 0, weight 0.
        valid : (S,S) bool. class_index : row of the anchors.

        Returns ``rgb`` = D(F_rgb, F_3d->rgb), ``3d`` = D(F_3d, F_rgb->3d) and, where the preset has text,
        ``text_rgb`` = D(A_c, F_rgb->text) and ``text_3d`` = D(A_c, F_3d->text). With ``fusion.level = "predicted"``
        the first two are divided by what is to be expected there (:mod:`edge_ad.models.levels`): the level of each
        token, interpolated as its feature is.
        """
        f = self.pixel_features(rgb_tokens, point_tokens, interp_index, interp_weight, class_index)
        flat = {"rgb": distance(f.rgb, f.points_to_rgb), "3d": distance(f.points, f.rgb_to_3d)}
        if self.levels is not None:
            own_rgb, own_points = self.of_class(rgb_tokens, point_tokens, class_index)
            of_rgb, of_3d = self.levels.of_rgb(own_points)[:, None], self.levels.of_3d(own_rgb)[:, None]
            flat["rgb"] = flat["rgb"] / three_nearest(of_rgb, interp_index, interp_weight)[:, 0].clamp_min(1e-12)
            flat["3d"] = flat["3d"] / bilinear(of_3d, self.preset.geometry.size)[:, 0]
        if f.rgb_to_text is not None and f.points_to_text is not None:
            anchor = self.anchors[class_index]
            flat["text_rgb"] = distance(anchor, f.rgb_to_text)
            flat["text_3d"] = distance(anchor, f.points_to_text)
        return {name: torch.where(valid, d.reshape(valid.shape), 0.0) for name, d in flat.items()}

    def class_distances(
        self, rgb_tokens: Tensor, point_tokens: Tensor, interp_index: Tensor, interp_weight: Tensor, valid: Tensor
    ) -> Tensor:
        """(C,) mean distance of the valid pixels' text features (both modalities) to each anchor.

        ``auto`` takes the class where it is least. NaN when no pixel is valid. EdgeAdError for a preset without text.
        """
        f = self.pixel_features(rgb_tokens, point_tokens, interp_index, interp_weight)
        if f.rgb_to_text is None or f.points_to_text is None:
            raise EdgeAdError("the class 'auto' needs text anchors, and this model has none", "", "name the class")
        inside = valid.flatten()
        to_rgb, to_3d = f.rgb_to_text[inside], f.points_to_text[inside]
        return torch.stack([(distance(a, to_rgb) + distance(a, to_3d)).mean() / 2 for a in self.anchors])

    def anomaly_map(self, terms: Mapping[str, Tensor], valid: Tensor | None = None) -> Tensor:
        """(S,S) smoothed anomaly map, eq. 12-16: alpha Psi_rgb Psi_3d + beta Psi_text.

        ``fusion.combine = "max"`` takes the larger of Psi_rgb and Psi_3d in the place of their product: a defect that
        one modality alone sees is not damped by the other's quiet.
        With ``fusion.balance = "train-mean"`` each Psi is first divided by its entry of ``balance``. Smoothing comes
        last. With ``fusion.smooth_over = "image"`` the map runs a few pixels over the border of the valid region (as
        CFM publishes it); with ``"valid"``, which needs ``valid`` (S,S) bool, it is a mean over valid pixels.
        """
        fusion = self.preset.fusion
        mean_rgb, mean_3d, mean_text = self.balance if fusion.balance == "train-mean" else torch.ones(3)
        psi_rgb, psi_3d = terms["rgb"] / mean_rgb, terms["3d"] / mean_3d
        psi = fusion.alpha * (torch.maximum(psi_rgb, psi_3d) if fusion.combine == "max" else psi_rgb * psi_3d)
        if "text_rgb" in terms:
            psi = psi + fusion.beta * (terms["text_rgb"] * terms["text_3d"] / mean_text)
        if fusion.smooth_over == "valid":
            if valid is None:
                raise EdgeAdError("no mask of valid pixels", 'one, for fusion.smooth_over = "valid"')
            return smooth_over_valid(psi, valid, fusion.smoothing, fusion.sigma, fusion.rim, fusion.spread)
        return smooth(psi, fusion.smoothing, fusion.sigma)

    def score(self, anomaly_map: Tensor) -> float:
        """Image score of a smoothed map, by ``fusion.score``."""
        return float(image_score(anomaly_map, self.preset.fusion.score))
