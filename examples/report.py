"""The tables of the demo, made from what each command answered with ``--json``; terminal and page show the same."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from edge_ad.evaluation.tables import Table, metrics_table

Document = dict[str, Any]


def metrics(evaluated: Document) -> Table:
    """Metrics a class and the mean, with the plain z-score beside them."""
    keys = ("i_auroc", "p_auroc", "aupro_30", "aupro_1")
    classes = evaluated["classes"]
    plain = evaluated.get("baseline_i_auroc") or {}
    thresholds = evaluated["aupro_thresholds"]
    table = metrics_table(
        {c: {k: v[k] for k in keys} for c, v in classes.items()},
        None if thresholds == "exact" else int(thresholds),
        title="Metrics on the test parts",
        counts={c: (v["good"], v["defective"]) for c, v in classes.items()},
    )
    if not plain:
        return table
    mean = f"{100 * statistics.fmean(plain.values()):.1f}"
    return Table(
        table.title,
        (*table.columns, "z-score I-AUROC"),
        tuple((*row, f"{100 * plain[row[0]]:.1f}" if row[0] in plain else "-") for row in table.rows),
        tuple((*row, mean) for row in table.footer),
        (*table.notes, "z-score: the plainest detector, |z| of colour and height at every pixel, no features"),
    )


def recall(evaluated: Document) -> list[Table]:
    """Recall by size and by where the defect shows."""
    found = evaluated.get("recall")
    if not found:
        return []
    tables = []
    for by, title in (("size", "Recall by size of the defect"), ("shows in", "Recall by where the defect shows")):
        rows = [r for r in found["rows"] if r["by"] in (by, "all")]
        cells = tuple(
            (
                "all" if r["by"] == "all" else r["group"],
                str(r["found"]),
                str(r["total"]),
                f"{100 * r['recall']:.1f}",
                f"{100 * r['interval_95'][0]:.0f}-{100 * r['interval_95'][1]:.0f}",
            )
            for r in rows
        )
        tables.append(Table(title, ("defect", "found", "of", "recall %", "95 % interval"), cells))
    note = f"at the bundle's thresholds; {found['false_rejects']} of {found['good_parts']} good test parts rejected"
    last = tables[-1]
    tables[-1] = Table(last.title, last.columns, last.rows, notes=(note,))
    return tables


def ablation(evaluated: Document) -> list[Table]:
    """I-AUROC of the whole score and of each modality alone, by where the defect shows."""
    ways = evaluated.get("ablation_i_auroc")
    if not ways:
        return []
    kinds = list(next(iter(ways.values())))
    rows = tuple((way, *(f"{100 * values[k]:.1f}" for k in kinds)) for way, values in ways.items())
    return [Table("I-AUROC by where the defect shows", ("scored by", *(k or "all" for k in kinds)), rows)]


def fitted(document: Document) -> list[Table]:
    """What the fit did, and the cosines between the classes' anchors."""
    curve, seconds = document["loss_curve"], document["seconds"]
    rows = (
        ("training samples", str(sum(document["training_samples"].values()))),
        ("held out", str(document["held_out_samples"])),
        ("steps (skipped)", f"{document['steps']} ({document['skipped_steps']})"),
        ("loss, first to last", f"{curve[0]:.3f} to {curve[-1]:.3f}"),
        ("features", f"{seconds['features']:.0f} s"),
        ("training", f"{seconds['training']:.0f} s"),
    )
    tables = [Table("Fit", ("", "value"), rows, notes=tuple(document["warnings"]))]
    cosines, names = document["anchor_cosines"], document["classes"]
    if cosines and len(names) > 1:
        cells = tuple((n, *(f"{v:.3f}" for v in row)) for n, row in zip(names, cosines, strict=True))
        note = "above 0.99 two classes' anchors have collapsed"
        tables.append(Table("Cosines between the classes' text anchors", ("", *names), cells, notes=(note,)))
    return tables


def exported(document: Document) -> Table:
    """The four graphs, and how far the bundle is from the torch reference."""
    rows = tuple(
        (n, str(g["nodes"]), f"{g['parameters']:,}", f"{g['bytes'] / 1e6:.2f}") for n, g in document["graphs"].items()
    )
    note = (
        f"worst difference from the torch reference on the golden frames: map {document['map_difference']:.1e}, "
        f"score {document['score_difference']:.1e} (allowed {document['tolerance']:.0e}, relative)"
    )
    return Table("Bundle: ONNX graphs, float32", ("graph", "nodes", "parameters", "MB"), rows, notes=(note,))


def engines(documents: dict[str, Document]) -> Table:
    """Engines a backend; a backend that was skipped is a note."""
    rows, notes = [], []
    for backend, document in documents.items():
        if "skipped" in document:
            notes.append(f"{backend}: {document['skipped']}")
            continue
        rows += [(backend, e["graph"], f"{e['bytes'] / 1e6:.2f}", f"{e['seconds']:.2f}") for e in document["engines"]]
    return Table("Engines", ("backend", "graph", "MB", "build s"), tuple(rows), notes=tuple(notes))


def thresholds(document: Document) -> Table:
    """Thresholds a class and what they stand on."""
    rows = tuple(
        (
            name,
            str(t["n_parts"]),
            f"{100 * t['false_reject_rate']:.3g}",
            f"{100 * t['rate_upper_95']:.1f}",
            f"{t['median_score']:.3f}",
            f"{t['value']:.3f}",
            f"{100 * t['lost_share']:.1f}",
        )
        for name, t in document["classes"].items()
    )
    columns = ("class", "good parts", "false rejects %", "95 % sure below %", "median score", "threshold", "lost %")
    return Table("Thresholds from held-out good parts", columns, rows)


def results(folder: Path) -> list[Document]:
    """The lines of ``results.jsonl``."""
    path = folder / "results.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def stage_times(lines: list[Document]) -> Table:
    """Median and 95th percentile a stage over the frames of a run."""
    stages: dict[str, list[float]] = {}
    for line in lines:
        for stage, value in line["times_ms"].items():
            stages.setdefault(stage, []).append(value)
    rows = []
    for stage, values in sorted(stages.items(), key=lambda kv: kv[0] == "total"):
        ordered = sorted(values)
        rows.append((stage, f"{statistics.median(ordered):.1f}", f"{ordered[int(0.95 * (len(ordered) - 1))]:.1f}"))
    note = f"onnxruntime, fp32, this machine's processor, {len(lines)} frames; reading and writing files not counted"
    return Table("Time a frame", ("stage", "median ms", "p95 ms"), tuple(rows), notes=(note,))
