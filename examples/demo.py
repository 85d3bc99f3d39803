"""The whole line, end to end: what `make demo` runs. Every step is a call of the `edge-ad` command.

Synthetic parts are made, a model is fitted and exported, its engines are built, its thresholds set, its accuracy is
measured; then it inspects the synthetic camera. The same line runs on real recordings: a tote, empty and with objects.
All that is made lies under `demo/`; `demo/index.html` shows it.

    python examples/demo.py            # all of it
    python examples/demo.py --quick    # minutes to seconds: to see that it works, not how well
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import arc_tote  # noqa: E402
import page  # noqa: E402
import report  # noqa: E402
from steps import ROOT, StepFailedError, Steps  # noqa: E402

BACKENDS = {"onnxruntime": "onnxruntime", "tensorrt-rtx": "tensorrt_rtx"}
SYNTHETIC_STEPS = 7  # and one for each class of the synthetic camera
FRAMES = 24  # of the synthetic camera, shared among the classes
QUICK_CLASSES = "gear,hex_nut"
CLASSES = "bottle_cap,connector_plate,cookie,gear,hex_nut"


def synthetic(steps: Steps, demo: Path, quick: bool, classes: list[str]) -> None:
    """Synthetic parts: from nothing to masks."""
    parts, model, bundle, results = demo / "parts", demo / "model", demo / "bundle", demo / "results"
    for old in (parts, model, demo / "model.cache", bundle, *(results / n for n in ("overlay", "mask", "map"))):
        shutil.rmtree(old, ignore_errors=True)
    for file in (results / "results.jsonl", demo / "sheet.png"):
        file.unlink(missing_ok=True)
    size = "small" if quick else "full"
    made = steps.edge_ad(
        "synth", "make synthetic parts", "synth", "--out", parts, "--parts", size, "--classes", ",".join(classes)
    )
    told = f"      {made['parts']} parts of {', '.join(made['classes'])}; {made['defective']} of them defective"
    steps.tell("synth", (), told)

    few = ["--epochs", 1, "--min-steps", 40] if quick else []
    fitted = steps.edge_ad("fit", "fit one model over all classes", "fit", "--data", parts, "--out", model, *few)
    steps.tell("fit", report.fitted(fitted))

    exported = steps.edge_ad("export", "export to a bundle", "export", model, bundle, "--data", parts)
    steps.tell("export", [report.exported(exported)])

    for backend, module in BACKENDS.items():
        name, title = f"engine-{backend}", f"build the engine for {backend}"
        if find_spec(module) is None:
            steps.skip(name, title, f"the package {module.replace('_', '-')} is not installed on this machine")
            continue
        built = steps.edge_ad(name, title, "build-engine", bundle, "--backend", backend)
        steps.tell(name, [report.engines({backend: built})])

    rate = 0.2 if quick else 0.05  # four held-out parts cannot promise less than 1/5
    limits = steps.edge_ad(
        "thresholds", "set thresholds on held-out good parts", "calibrate", "thresholds", bundle, "--data", parts,
        "--false-reject-rate", rate,
    )  # fmt: skip
    steps.tell("thresholds", [report.thresholds(limits)])

    measured = steps.edge_ad(
        "evaluate", "measure on the test parts", "evaluate", bundle, "--data", parts, "--ablation",
        "--sheet", demo / "sheet.png",
    )  # fmt: skip
    steps.tell("evaluate", [report.metrics(measured), *report.ablation(measured), *report.recall(measured)])

    frames = max(1, (6 if quick else FRAMES) // len(classes))
    for number, name in enumerate(classes):
        camera = f"synthetic:{name}?seed={7 + number}&frames={frames}&defects=0.6"
        ran = steps.edge_ad(
            f"run-{name}", f"inspect the synthetic camera: {name}", "run", bundle, "--camera", camera,
            "--output", f"folder:{results}",
        )  # fmt: skip
        counts = ", ".join(f"{n} {decision}" for decision, n in ran["decisions"].items())
        last = [report.stage_times(report.results(results))] if number == len(classes) - 1 else []
        steps.tell(f"run-{name}", last, f"      {ran['frames']} frames: {counts}")


def real(steps: Steps, demo: Path, source: Path, quick: bool) -> None:
    """Real recordings, where they are at hand."""
    if not source.is_dir():
        reason = f"no recordings in {os.path.relpath(source, ROOT)}; the synthetic camera stands alone"
        steps.skip("arc", "real recordings", reason)
        return
    sizes = {"augment": 4, "min_steps": 40, "variations": 4, "rate": 0.2} if quick else {}
    arc_tote.run(steps, source, demo / "arc", demo / "results/arc", **sizes)


def main() -> int:
    """Run the demo; 0 when every step ended well."""
    parser = argparse.ArgumentParser(description="The whole line, end to end, on synthetic parts and real recordings.")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for all that is made (default: demo)")
    parser.add_argument("--quick", action="store_true", help="few parts, few steps: shows that it works, not how well")
    parser.add_argument("--only", choices=("synthetic", "arc"), help="one half of the demo")
    parser.add_argument("--classes", default="", help="comma-separated synthetic classes")
    parser.add_argument("--source", type=Path, default=arc_tote.SOURCE, help="the real recordings")
    args = parser.parse_args()
    started = time.monotonic()
    classes = [c.strip() for c in (args.classes or (QUICK_CLASSES if args.quick else CLASSES)).split(",") if c.strip()]
    halves = {"synthetic": SYNTHETIC_STEPS + len(classes), "arc": arc_tote.STEPS if args.source.is_dir() else 1}
    halves = {k: n for k, n in halves.items() if args.only in (None, k)}
    if args.only is None:
        shutil.rmtree(args.out / "json", ignore_errors=True)
    steps = Steps(args.out / "json", sum(halves.values()) + 1)
    try:
        if "synthetic" in halves:
            synthetic(steps, args.out, args.quick, classes)
        if "arc" in halves:
            real(steps, args.out, args.source, args.quick)
    except StepFailedError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    steps.begin("write the page", str(args.out / "index.html"))
    page.write(args.out, quick=args.quick)
    steps.tell("page")
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    print(f"\ndone in {minutes} min {seconds:02d} s: open {args.out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
