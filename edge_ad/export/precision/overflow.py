"""Which nodes cannot run in FP16 on real data: frames through the rounding twin, until nothing overflows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from edge_ad.errors import EdgeAdError
from edge_ad.export.precision.fp16 import cast_fp16
from edge_ad.export.precision.graph import Graph, Model
from edge_ad.export.precision.replay import Parts, Replay
from edge_ad.export.precision.roles import LARGEST, kept_by_rule
from edge_ad.export.precision.twin import PEAK, rounding_twin, with_peaks

HEADROOM = 2.0
"""A value may reach this part of FP16's largest number: frames to come are not those that were looked at."""
Track = Callable[[Iterable[Any], int, str], Iterable[Any]]


@dataclass(frozen=True)
class Kept:
    """A node that stays FP32: its graph and name, why, and for an overflow the largest absolute value that was seen."""

    graph: str
    node: str
    why: str
    peak: float | None = None


def keep_by_rule(models: Mapping[str, Model]) -> dict[str, dict[str, str]]:
    """Graph -> node -> why, for what stays FP32 whatever the frames say."""
    return {name: kept_by_rule(Graph(model, name)) for name, model in models.items()}


def find_overflows(
    replay: Replay,
    models: Mapping[str, Model],
    samples: Parts,
    *,
    track: Track | None = None,
) -> list[Kept]:
    """Run ``samples`` through the twins of ``models``; put every node that overflows back to FP32, and start again.

    Parameters
    ----------
    models : graph name -> float32 graph. samples : prepared parts.

    Returns
    -------
    Everything that stays FP32, the rule's nodes first, then the overflows in the order in which they were found.

    Raises
    ------
    EdgeAdError
        No frame could be scored, or the float32 graphs themselves do not stay finite.
    """
    if not samples:
        raise EdgeAdError("none of the frames could be scored", "frames that show a part")
    rule = keep_by_rule(models)
    kept = [Kept(g, node, why) for g, nodes in rule.items() for node, why in nodes.items()]
    keep = {g: set(nodes) for g, nodes in rule.items()}
    for _ in range(64):
        seen = _peaks(replay, models, keep, samples, track)
        found: dict[tuple[str, str], float] = {}
        for (graph, tensor), peak in seen.largest.items():
            if peak > LARGEST / HEADROOM:
                for node in seen.nodes[graph, tensor]:
                    found[graph, node] = max(peak, found.get((graph, node), 0.0))
        if not found:
            if seen.broken:
                raise EdgeAdError(
                    f"{seen.broken[0]} is not finite although nothing overflows",
                    "a float32 graph that is finite on these frames",
                    "look at the frames, or report this model",
                )
            return kept
        for (graph, node), peak in found.items():
            keep[graph].add(node)
            kept.append(Kept(graph, node, "overflow", peak))
    raise EdgeAdError("FP16 overflows were not resolved in 64 rounds", "a graph that runs in FP16", "use fp32")


@dataclass(frozen=True)
class _Seen:
    """largest : (graph, tensor) -> largest finite absolute value before the rounding. nodes : whom it concerns.
    broken : tensors that were not finite at times, behind an overflow."""

    largest: dict[tuple[str, str], float]
    nodes: dict[tuple[str, str], tuple[str, ...]]
    broken: list[str]


def _peaks(
    replay: Replay,
    models: Mapping[str, Model],
    keep: Mapping[str, set[str]],
    samples: Parts,
    track: Track | None,
) -> _Seen:
    seen = _Seen({}, {}, [])
    sessions = {}
    for name, model in models.items():
        twin = rounding_twin(cast_fp16(Graph(model, name), keep[name]), name)
        seen.nodes.update({(name, tensor): readers for tensor, readers in twin.rounded.items()})

        def watch(output: str, value: NDArray[Any], graph: str = name) -> None:
            if not output.startswith(PEAK):
                return
            tensor, peak = output.removeprefix(PEAK), float(value)
            if math.isfinite(peak):
                seen.largest[graph, tensor] = max(peak, seen.largest.get((graph, tensor), 0.0))
            else:
                seen.broken.append(f"{graph}: {tensor}")

        sessions[name] = replay.session(name, with_peaks(twin, name), watch)
    done = replay.run(samples, sessions)
    for _ in track(done, len(samples), "fp16 twin") if track else done:
        pass
    return seen
