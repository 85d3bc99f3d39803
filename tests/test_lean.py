"""The lean side stays lean, the arrows between the folders run one way, and ``--help`` is fast.

DESIGN: frame, bundle, data, runtime, engines, sensors, outputs and calibration (without INT8) never import torch,
onnx, models, export or training.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import edge_ad
from edge_ad.cli.doctor import PACKAGES
from edge_ad.cli.main import COMMANDS

ROOT = Path(edge_ad.__file__).parent
LEAN = (
    "errors",
    "files",
    "frame",
    "system",
    "bundle",
    "presets",
    "data",
    "runtime",
    "engines",
    "sensors",
    "outputs",
    "calibration",
    "evaluation",
)
# What needs onnx within calibration: it places Q/DQ and measures candidates, on the workstation.
INT8_RANGES = {f"edge_ad.calibration.int8.{name}" for name in ("calibrate", "observe", "probe", "sensitivity", "spare")}
# Packages that an edge box does not have. TensorRT, PyCUDA and the like are optional there, so importing a
# lean module must not need them either.
HEAVY = ("torch", "onnx", "onnxsim", "onnxscript", "safetensors")
CAMERAS = ("pyrealsense2", "pyorbbecsdk", "depthai", "rosbags", "mcap")
OPTIONAL = ("tensorrt", "tensorrt_rtx", "pycuda", "openvino", "paho", *CAMERAS)
BLOCKER = f"""
import sys

class Blocked:
    names = {HEAVY + OPTIONAL!r}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {{name!r}} (blocked: the lean side goes without)", name=name)
        return None

sys.meta_path.insert(0, Blocked())
"""


def modules(*parts: str) -> list[str]:
    """Dotted names of every module in these files and folders of the package."""
    paths: list[Path] = []
    for part in parts:
        paths += [ROOT / f"{part}.py"] if (ROOT / f"{part}.py").is_file() else sorted((ROOT / part).rglob("*.py"))
    names = (".".join(("edge_ad", *path.relative_to(ROOT).with_suffix("").parts)) for path in paths)
    return [name.removesuffix(".__init__") for name in names]


def python(code: str, *, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout)


def imports(path: Path, package: str) -> set[str]:
    """Every module that a file imports, inside functions too. Imports for type checkers alone do not count."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for child in node.orelse:
                visit(child)
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], base]).strip(".")
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def file_of(module: str) -> tuple[Path, str]:
    """A module's file and the package that its relative imports start from."""
    path = ROOT.joinpath(*module.split(".")[1:])
    if path.is_dir():
        return path / "__init__.py", module
    return path.with_suffix(".py"), module.rpartition(".")[0]


def breaches(module: str, forbidden: tuple[str, ...]) -> list[str]:
    names = imports(*file_of(module))
    return sorted(n for n in names if any(n == f or n.startswith(f + ".") for f in forbidden))


LEAN_MODULES = [m for m in modules(*LEAN) if m not in INT8_RANGES]


@pytest.mark.parametrize("part", LEAN)
def test_every_lean_part_is_there(part: str) -> None:
    assert modules(part), f"edge_ad/{part} holds no module"


def test_lean_modules_import_without_optional_packages() -> None:
    done = python(
        BLOCKER
        + f"""
import importlib, json, traceback
failed = {{}}
for name in {LEAN_MODULES!r}:
    try:
        importlib.import_module(name)
    except BaseException:
        failed[name] = traceback.format_exc().splitlines()[-1]
print(json.dumps(failed))
"""
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {}


def test_the_blocker_blocks() -> None:
    done = python(BLOCKER + "import torch")
    assert done.returncode != 0
    assert "blocked" in done.stderr


@pytest.mark.parametrize("name", list(COMMANDS))
def test_help_of_every_command_without_optional_packages(name: str) -> None:
    module = COMMANDS[name][0]
    assert (ROOT / "cli" / f"{module}.py").is_file(), f"the command '{name}' has no module edge_ad/cli/{module}.py"
    done = python(BLOCKER + f"from edge_ad.cli.main import main; main([{name!r}, '--help'], prog_name='edge-ad')")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: edge-ad {name} ")


@pytest.mark.parametrize("module", LEAN_MODULES)
def test_lean_never_imports_the_workstation_side(module: str) -> None:
    heavy = (*HEAVY, "edge_ad.models", "edge_ad.export", "edge_ad.training", "edge_ad.cli")
    assert breaches(module, heavy) == []


def third_party(module: str) -> set[str]:
    return {n.split(".")[0] for n in imports(*file_of(module))} - set(sys.stdlib_module_names) - {"edge_ad"}


@pytest.mark.parametrize("module", modules("."))
def test_every_third_party_import_is_a_declared_package(module: str) -> None:
    """`doctor` names every package with its extra, and a test holds that against pyproject.toml."""
    declared = {name for _, name, extra in PACKAGES if not extra or module not in LEAN_MODULES}
    declared |= {"tomli", "tomllib", *(OPTIONAL if module in LEAN_MODULES else ())}
    assert sorted(third_party(module) - declared) == []


# arrow: who may not import whom
ARROWS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        ("errors", "files", "frame", "system"),
        ("runtime", "data", "engines", "sensors", "outputs", "calibration", "bundle"),
    ),
    (("bundle",), ("runtime", "data", "engines", "sensors", "outputs", "calibration")),
    (("runtime", "data", "engines"), ("sensors", "outputs", "calibration", "evaluation")),
    (("sensors",), ("outputs", "engines", "calibration", "evaluation")),
    (("outputs",), ("sensors", "data", "engines", "runtime", "calibration", "evaluation")),
    (("models",), ("training", "export", "cli", "sensors", "outputs", "calibration")),
    (("training", "export"), ("cli", "sensors", "outputs")),
)


@pytest.mark.parametrize(("importers", "forbidden"), ARROWS, ids=lambda parts: "+".join(parts))
def test_arrows_run_one_way(importers: tuple[str, ...], forbidden: tuple[str, ...]) -> None:
    targets = tuple(f"edge_ad.{name}" for name in forbidden)
    assert {m: found for m in modules(*importers) if (found := breaches(m, targets))} == {}


@pytest.mark.parametrize("module", modules("cli"))
def test_commands_import_heavy_things_inside_functions(module: str) -> None:
    """What stands at a command's module level is loaded for its --help: click and small modules alone."""
    tree = ast.parse(file_of(module)[0].read_text(encoding="utf-8"))
    top = {
        alias.name if isinstance(node, ast.Import) else f"{node.module}.{alias.name}"
        for node in tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    heavy = (*HEAVY, *OPTIONAL, "numpy", "cv2", "scipy", "onnxruntime")
    assert sorted(n for n in top if n.split(".")[0] in heavy) == []


def test_the_import_finder_sees_what_it_must(tmp_path: Path) -> None:
    source = tmp_path / "probe.py"
    source.write_text(
        "from typing import TYPE_CHECKING\nimport os.path\nfrom . import sibling\nfrom ..models import vit\n"
        "if TYPE_CHECKING:\n    import torch\ndef f():\n    import onnx\n",
        encoding="utf-8",
    )
    found = imports(source, "edge_ad.runtime")
    assert {"os.path", "edge_ad.runtime.sibling", "edge_ad.models.vit", "onnx"} <= found
    assert "torch" not in found


def test_group_help_imports_no_command_and_no_array_library() -> None:
    done = python(
        "import sys\nfrom edge_ad.cli.main import main\n"
        "try:\n    main(['--help'], prog_name='edge-ad')\nfinally:\n"
        "    print(' '.join(sorted(sys.modules)), file=sys.stderr)"
    )
    assert done.returncode == 0
    loaded = set(done.stderr.split())
    assert "edge_ad.cli.main" in loaded
    assert loaded.isdisjoint({"numpy", "cv2", "scipy", "onnxruntime", "torch"})
    assert {m for m in loaded if m.startswith("edge_ad.cli.")} == {"edge_ad.cli.main", "edge_ad.cli.common"}


def test_group_help_is_fast() -> None:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "edge_ad.cli.main", "--help"], capture_output=True, timeout=60)
        times.append(time.perf_counter() - start)
        assert done.returncode == 0
    assert min(times) < 0.5, f"edge-ad --help took {min(times):.2f} s at best"
