"""The three networks before scoring, bound to a slot's buffers."""

from __future__ import annotations

from collections.abc import Mapping

from edge_ad.runtime.device.api import Stream
from edge_ad.runtime.device.networks import Bound, Network, run
from edge_ad.runtime.device.points import PointBranch
from edge_ad.runtime.device.sizes import Sizes
from edge_ad.runtime.device.slot import Slot


class Encoders:
    """Queues the colour encoder, the point encoder with its pooling, and the tables.

    by_class : the tables are those of the class in ``slot.plan_index`` (``mappers.condition``), their text columns of
    every class.
    """

    def __init__(self, networks: Mapping[str, Network], sizes: Sizes, points: PointBranch) -> None:
        self._networks, self._s, self._points = networks, sizes, points
        self.by_class = any(t.name == "class_index" for t in networks["tokens"].inputs)

    def rgb(self, slot: Slot, stream: Stream) -> None:
        """Image to colour tokens."""
        s = self._s
        run(
            self._networks["rgb"],
            {"image": ((1, 3, s.size, s.size), slot.image)},
            {"rgb_tokens": ((s.rgb_tokens, s.dim_rgb), slot.rgb_tokens)},
            stream,
        )

    def points(self, slot: Slot, stream: Stream) -> None:
        """Groups and centres to pooled point tokens."""
        s, p = self._s, self._points
        run(
            self._networks["points"],
            {"groups": ((1, s.groups, s.group_size, 3), p.groups), "centers": ((1, s.groups, 3), p.centers)},
            {"point_tokens": ((s.groups, s.dim_points), p.tokens)},
            stream,
        )
        p.pool(slot, stream)

    def tables(self, slot: Slot, stream: Stream) -> None:
        """Tokens to the tables that scoring interpolates, and to the expected distances where the model has them."""
        s = self._s
        levels: Bound = {}
        which: Bound = {"class_index": ((1,), slot.plan_index)} if self.by_class else {}
        if s.levels:
            levels = {"rgb_level": ((s.rgb_tokens,), slot.rgb_level), "point_level": ((s.groups,), slot.point_level)}
        run(
            self._networks["tokens"],
            {
                "rgb_tokens": ((s.rgb_tokens, s.dim_rgb), slot.rgb_tokens),
                "point_tokens": ((s.groups, s.dim_points), slot.pooled),
                **which,
            },
            {
                "rgb_table": ((s.rgb_tokens, s.rgb_width), slot.rgb_table),
                "point_table": ((s.groups, s.point_width), slot.point_table),
                **levels,
            },
            stream,
        )
