"""The demo's page: one file, its pictures beside it, nothing from the network."""

from __future__ import annotations

import json
import os
import statistics
from html import escape
from pathlib import Path
from typing import Any

import report
from machine import machine, versions
from markup import decision, figure, html_table

Document = dict[str, Any]
GALLERY = 12
STYLE = Path(__file__).with_name("page.css")

STEP_TITLES = {
    "synth": "synthetic parts", "fit": "fit", "export": "export", "engine-onnxruntime": "engine, onnxruntime",
    "engine-tensorrt-rtx": "engine, tensorrt-rtx", "thresholds": "thresholds", "evaluate": "evaluate",
    "run": "run, synthetic camera: {}", "arc-fit": "real recordings: fit", "arc-export": "real recordings: export",
    "arc-thresholds": "real recordings: thresholds", "arc-run": "real recordings: run",
}  # fmt: skip


def write(demo: Path, *, quick: bool = False) -> None:
    """Write ``demo/index.html`` from the JSON that the steps left in ``demo/json``."""
    found = {p.stem: json.loads(p.read_text(encoding="utf-8")) for p in sorted((demo / "json").glob("*.json"))}
    parts = [
        _head(found, quick),
        "<main>",
        _tiles(found, demo),
        _real(found),
        _synthetic(found, demo),
        _bundle(found, demo),
        _steps(found),
        "</main>",
        _foot(),
    ]
    style = STYLE.read_text(encoding="utf-8")
    title = "edge-ad: colour + depth anomaly detection, demo"
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>\n{style}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )
    (demo / "index.html").write_text(page, encoding="utf-8")


def _done(found: dict[str, Document], name: str) -> Document | None:
    document = found.get(name)
    return None if document is None or "skipped" in document else document


def _head(found: dict[str, Document], quick: bool) -> str:
    quick_note = (
        "<p><b>Quick run:</b> few parts and few steps. The figures show that the line works, not how well it does.</p>"
        if quick
        else ""
    )
    links = {"real": "Real recordings", "synthetic": "Synthetic parts", "bundle": "Bundle", "steps": "Steps"}
    nav = "".join(f'<a href="#{name}">{text}</a>' for name, text in links.items())
    return (
        "<header><div><h1>Anomaly detection on colour + depth, from good parts to masks</h1>"
        "<p>A model was fitted on good parts alone, exported to a bundle of ONNX graphs, given thresholds for a chosen "
        "false-reject rate, and run on frames it had not seen. Everything on this page was made on one machine by "
        f"the commands listed under <a href='#steps'>Steps</a>.</p>{quick_note}</div></header>"
        f"<nav><div>{nav}</div></nav>"
    )


def _tiles(found: dict[str, Document], demo: Path) -> str:
    tiles: list[tuple[str, str]] = []
    if (e := _done(found, "evaluate")) is not None:
        n = len(e["classes"])
        for key, text in (("i_auroc", "image AUROC"), ("aupro_30", "AUPRO at 30 % false positives")):
            if e["mean"][key] is not None:
                tiles.append((f"{e['mean'][key]:.3f}", f"mean {text}, {n} synthetic classes, one model"))
    if (a := _done(found, "arc")) is not None:
        worst = min(v["pixel_auroc"] for v in a["views"])
        tiles.append((f"{worst:.3f}", f"lowest pixel AUROC of {len(a['views'])} real views of a tote"))
    lines = report.results(demo / "results")
    if lines:
        median = statistics.median(line["times_ms"]["total"] for line in lines if "total" in line["times_ms"])
        text = f"median a frame, onnxruntime fp32 on {os.cpu_count()} processor cores"
        tiles.append((f"{median:.0f} ms", text))
    if (x := _done(found, "export")) is not None:
        size = sum(g["bytes"] for g in x["graphs"].values()) / 1e6
        tiles.append((f"{size:.1f} MB", "four ONNX graphs, float32"))
        tiles.append((f"{x['map_difference']:.0e}", "largest difference of the exported map from the torch reference"))
    body = "".join(f'<div class="tile"><b>{escape(v)}</b><span>{escape(t)}</span></div>' for v, t in tiles)
    return f'<div class="tiles">{body}</div>'


def _real(found: dict[str, Document]) -> str:
    document = found.get("arc")
    head = '<section id="real"><h2>Real recordings: foreign objects in a tote</h2>'
    if document is None:
        return f"{head}<p>Not part of this run.</p></section>"
    if "skipped" in document:
        return f"{head}<p>Skipped: {escape(document['skipped'])}.</p></section>"
    import arc_tote

    text = (
        "<p>A red tote seen by a depth camera from three places, empty and with objects. The model knows each view "
        "from one empty frame and seeded variations of it. Every pixel of the tote is inspected. Where depth is "
        "missing nothing can be scored; pixels that had depth in the empty tote and have none now are <em>lost</em>, "
        "are shown hatched, and never pass as normal beyond their own limit: glass, wire and black mesh show up "
        "there.</p>"
    )
    views = "".join(_view(v) for v in document["views"])
    return f"{head}{text}{html_table(arc_tote.table(document))}{views}</section>"


def _view(v: Document) -> str:
    base = "results/arc"
    reasons = "; ".join(v["reasons"]) or "none"
    caption = (
        f"score {v['score']:.2f}, threshold {v['threshold']:.2f}; {v['no_depth_share']:.0%} of the drawn objects' "
        f"pixels have no depth, {v['no_depth_flagged']:.0%} of these are flagged lost; further reasons: {reasons}"
    )
    figures = (
        (f"{base}/views/{v['view']}_objects.png", "colour, as the camera saw it"),
        (f"{base}/views/{v['view']}_heat.png", "anomaly over the threshold; black: not scored"),
        (f"{base}/{v['overlay']}", "overlay: heat, regions in mm², lost depth hatched"),
    )
    cells = "".join(figure(src, escape(text)) for src, text in figures)
    return (
        f'<div class="view"><h3>{escape(v["view"])}: {decision(v["decision"])}</h3>'
        f'<div class="three">{cells}</div><p class="note">{escape(caption)}</p></div>'
    )


def _synthetic(found: dict[str, Document], demo: Path) -> str:
    head = '<section id="synthetic"><h2>Synthetic parts</h2>'
    evaluated, made = _done(found, "evaluate"), _done(found, "synth")
    if evaluated is None or made is None:
        return f"{head}<p>Not part of this run.</p></section>"
    text = (
        f"<p>{made['parts']} procedural parts of {len(made['classes'])} classes with exact ground truth, "
        f"{made['defective']} of them with a defect that shows in colour, in depth or in both. One model for all "
        "classes, fitted on the good training parts; thresholds from validation parts; figures from test parts.</p>"
    )
    out = [head, text, html_table(report.metrics(evaluated))]
    out.append(f'<div class="two"><div>{"".join(html_table(t) for t in report.ablation(evaluated))}')
    recall = [html_table(t) for t in report.recall(evaluated)]
    out.append(f"{''.join(recall[1:])}</div><div>{''.join(recall[:1])}</div></div>")
    shown = _gallery(report.results(demo / "results"))
    if shown:
        out.append('<h3>Frames of the synthetic camera, as an operator sees them</h3><div class="grid">')
        for line in shown:
            truth = line["name"].rsplit("-", 1)[-1].replace("_", " ")
            caption = f"{decision(line['decision'])}, truly: {escape(truth)} ({escape(str(line['class']))})"
            out.append(figure(f"results/{line['files']['overlay']}", caption))
        out.append("</div>")
    if (demo / "sheet.png").is_file():
        out.append("<h3>Contact sheet of test parts</h3>")
        out.append(figure("sheet.png", "colour, depth, ground truth, anomaly map, mask at the class's threshold"))
    return "".join(out) + "</section>"


def _gallery(lines: list[Document]) -> list[Document]:
    """Up to ``GALLERY`` frames with a picture, classes in turn."""
    by_class: dict[str, list[Document]] = {}
    for line in lines:
        if "overlay" in line["files"]:
            by_class.setdefault(str(line["class"]), []).append(line)
    turns = max((len(v) for v in by_class.values()), default=0)
    return [v[i] for i in range(turns) for v in by_class.values() if i < len(v)][:GALLERY]


def _bundle(found: dict[str, Document], demo: Path) -> str:
    out = ['<section id="bundle"><h2>The bundle and what it runs on</h2>']
    if (fitted := _done(found, "fit")) is not None:
        tables = [html_table(t) for t in report.fitted(fitted)]
        out.append(f'<div class="two"><div>{tables[0]}</div><div>{"".join(tables[1:])}</div></div>')
    left, right = [], []
    if (exported := _done(found, "export")) is not None:
        left.append(html_table(report.exported(exported)))
    built = {k.removeprefix("engine-"): v for k, v in found.items() if k.startswith("engine-")}
    if built:
        right.append(html_table(report.engines(built)))
        right.append(
            '<p class="note">tensorrt-rtx plans are really built here, for the compute capability the command names, '
            "but no GPU was at hand to run them.</p>"
        )
    if (limits := _done(found, "thresholds")) is not None:
        left.append(html_table(report.thresholds(limits)))
    lines = report.results(demo / "results")
    if lines:
        right.append(html_table(report.stage_times(lines)))
    out.append(f'<div class="two"><div>{"".join(left)}</div><div>{"".join(right)}</div></div></section>')
    return "".join(out)


def _steps(found: dict[str, Document]) -> str:
    rows, total = [], 0.0
    runs = [n for n in found if n.startswith("run-")]
    order = [n for key in STEP_TITLES for n in (runs if key == "run" else [key])]
    for name in order:
        title = STEP_TITLES["run"].format(name[4:]) if name in runs else STEP_TITLES[name]
        document = found.get(name)
        if document is None:
            continue
        if "skipped" in document:
            reason = escape(document["skipped"])
            rows.append(f'<tr><td>{escape(title)}</td><td>-</td><td class="left">{reason}</td></tr>')
            continue
        total += document["wall_seconds"]
        rows.append(
            f"<tr><td>{escape(title)}</td><td>{document['wall_seconds']:.1f}</td>"
            f'<td class="left"><code>{escape(document["command"])}</code></td></tr>'
        )
    return (
        '<section id="steps"><h2>Steps</h2><div class="scroll"><table><thead><tr><th>step</th><th>seconds</th>'
        f'<th style="text-align:left">command</th></tr></thead><tbody>{"".join(rows)}</tbody>'
        f'<tfoot><tr><td>all</td><td>{total:.0f}</td><td class="left"></td></tr></tfoot></table></div></section>'
    )


def _foot() -> str:
    return (
        f'<footer><div style="max-width:1120px;margin:0 auto;padding:0 24px">Measured on {escape(machine())}; '
        f"{escape(versions())}. Not measured here: any GPU, "
        "any Jetson, any live depth camera.</div></footer>"
    )
