"""The same parts scored by colour alone and by depth alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edge_ad.evaluation.metrics import auroc
from edge_ad.evaluation.report import Record
from edge_ad.evaluation.runner import ScoredPart
from edge_ad.frame import F32
from edge_ad.presets import Fusion
from edge_ad.runtime.maps import smooth


def single_modality(part: ScoredPart, fusion: Fusion) -> dict[str, F32]:
    """Maps that depend on one modality alone: a text factor reads colour only, the other depth only."""
    names = {"colour only": "text_rgb", "depth only": "text_3d"}
    return {k: smooth(part.factors[v], fusion, part.valid) for k, v in names.items() if v in part.factors}


def ablation_by_modality(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """I-AUROC of the full score and of each modality alone, over defects that show in colour, in depth, in both."""
    out: dict[str, dict[str, float]] = {}
    ways = ["full", *sorted(records[0].other_maps)]
    kinds = sorted({r.modality for r in records if r.modality}) or [""]
    for way in ways:
        out[way] = {}
        for kind in kinds:
            values = []
            for name in sorted({r.class_name for r in records}):
                group = [r for r in records if r.class_name == name and (not r.is_defective or r.modality == kind)]
                scores = [r.score if way == "full" else float(r.other_maps[way].max()) for r in group]
                if {r.is_defective for r in group} == {True, False}:
                    values.append(auroc([r.is_defective for r in group], scores))
            if values:
                out[way][kind] = sum(values) / len(values)
    return out


def ablation_text(table: Mapping[str, Mapping[str, float]]) -> str:
    """What :func:`ablation_by_modality` found, per cent, for the terminal."""
    kinds = list(next(iter(table.values())))
    lines = [
        "I-AUROC by where the defect shows (mean over the classes)",
        f"{'scored by':14}" + "".join(f"{k:>9}" for k in kinds),
    ]
    lines += [f"{way:14}" + "".join(f"{100 * v:9.1f}" for v in row.values()) for way, row in table.items()]
    return "\n".join(lines)
