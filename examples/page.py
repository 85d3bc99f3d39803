"""The demo's page: one file, its pictures beside it, nothing from the network."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import report

from edge_ad.evaluation.tables import Table

Document = dict[str, Any]
GALLERY = 12
VERSIONS = ("edge-ad", "numpy", "opencv-python", "onnxruntime", "torch", "tensorrt-rtx")

STYLE = """
:root { --paper: #fbfbf9; --ink: #1d2126; --dim: #61676f; --line: #dcdcd6; --card: #fff; --accent: #b3261e;
  --good: #1d7a3a; --warn: #9a6200; --code: #f1f1ec; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --ink: #e6e7e4; --dim: #9aa1a8; --line: #2d3237;
  --card: #1b1f23; --accent: #ff8a80; --good: #6fcf8c; --warn: #e0ab4f; --code: #20252a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main, header > div, nav > div { max-width: 1120px; margin: 0 auto; padding: 0 24px; }
header { padding: 44px 0 20px; } h1 { font-size: 30px; line-height: 1.2; margin: 0 0 8px; letter-spacing: -.01em; }
header p { max-width: 76ch; margin: 6px 0; color: var(--dim); }
nav { border-block: 1px solid var(--line); background: var(--paper); position: sticky; top: 0; z-index: 1; }
nav a { display: inline-block; padding: 9px 18px 9px 0; color: var(--dim); text-decoration: none; }
nav a:hover { color: var(--ink); }
section { padding: 30px 0 6px; } h2 { font-size: 21px; margin: 0 0 6px; } h3 { font-size: 15px; margin: 26px 0 6px; }
section > p { max-width: 80ch; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: 12px; margin: 22px 0 8px; }
.tile { border: 1px solid var(--line); background: var(--card); border-radius: 6px; padding: 12px 14px; }
.tile b { display: block; font-size: 25px; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile span { color: var(--dim); font-size: 13px; line-height: 1.35; display: block; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 4px 0; min-width: 380px; }
th, td { text-align: right; padding: 5px 14px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; color: var(--dim); font-size: 13px; white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; padding-left: 0; } tfoot td { font-weight: 600; border-bottom: 0; }
.note { color: var(--dim); font-size: 13px; margin: 2px 0; max-width: 96ch; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(400px, 1fr)); gap: 0 44px; }
.three { display: grid; grid-template-columns: repeat(3, 1fr); gap: 10px; align-items: end; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(245px, 1fr)); gap: 16px; }
@media (max-width: 720px) { .three, .two { grid-template-columns: 1fr; } }
figure { margin: 0; } img { width: 100%; display: block; border-radius: 4px; background: #000; }
figcaption { font-size: 13px; color: var(--dim); padding: 5px 0 2px; }
.view { margin: 22px 0 30px; } .view h3 { margin-top: 0; }
.tag { font-weight: 600; } .anomalous { color: var(--accent); } .normal { color: var(--good); }
.invalid { color: var(--warn); }
code { background: var(--code); padding: 1px 5px; border-radius: 3px; font-size: 13px; overflow-wrap: anywhere; }
td code { white-space: normal; } td.left { text-align: left; white-space: normal; }
footer { border-top: 1px solid var(--line); margin-top: 40px; padding: 18px 0 50px; color: var(--dim);
  font-size: 13px; }
"""

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
    title = "edge-ad: colour + depth anomaly detection, demo"
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )
    (demo / "index.html").write_text(page, encoding="utf-8")


def html_table(table: Table) -> str:
    """A :class:`Table` as HTML with its title and notes."""

    def row(cells: tuple[str, ...], tag: str = "td") -> str:
        return "<tr>" + "".join(f"<{tag}>{_decision(c)}</{tag}>" for c in cells) + "</tr>"

    title = f"<h3>{escape(table.title)}</h3>" if table.title else ""
    body = "".join(row(r) for r in table.rows)
    foot = f"<tfoot>{''.join(row(r) for r in table.footer)}</tfoot>" if table.footer else ""
    notes = "".join(f'<p class="note">{escape(n)}</p>' for n in table.notes)
    head = row(table.columns, "th")
    return f'{title}<div class="scroll"><table><thead>{head}</thead><tbody>{body}</tbody>{foot}</table></div>{notes}'


def _decision(cell: str) -> str:
    if cell in ("anomalous", "normal", "invalid"):
        return f'<span class="tag {cell}">{cell}</span>'
    return escape(cell)


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
    cells = "".join(_figure(src, escape(text)) for src, text in figures)
    return (
        f'<div class="view"><h3>{escape(v["view"])}: {_decision(v["decision"])}</h3>'
        f'<div class="three">{cells}</div><p class="note">{escape(caption)}</p></div>'
    )


def _figure(source: str, caption: str) -> str:
    return (
        f'<figure><a href="{escape(source)}"><img loading="lazy" src="{escape(source)}" alt=""></a>'
        f"<figcaption>{caption}</figcaption></figure>"
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
            caption = f"{_decision(line['decision'])}, truly: {escape(truth)} ({escape(str(line['class']))})"
            out.append(_figure(f"results/{line['files']['overlay']}", caption))
        out.append("</div>")
    if (demo / "sheet.png").is_file():
        out.append("<h3>Contact sheet of test parts</h3>")
        out.append(_figure("sheet.png", "colour, depth, ground truth, anomaly map, mask at the class's threshold"))
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


def versions() -> str:
    """Packages that the figures depend on."""
    found = []
    for name in VERSIONS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def machine() -> str:
    """Processor, cores and Python."""
    return f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match.group(1) if match else (platform.processor() or platform.machine())
