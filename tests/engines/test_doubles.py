"""The doubles cannot drift from the truth: every method and parameter is TensorRT's, in the real ``tensorrt_rtx`` and
in the published stubs of TensorRT 10; and the program itself type-checks against those stubs."""

from __future__ import annotations

import ast
import enum
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.engines import doubles

STUBS = Path(__file__).parent / "stubs/tensorrt/__init__.pyi"
DOUBLES = {k: v for k, v in vars(doubles).items() if inspect.isclass(v) and v is not doubles.World}
ENUMERATIONS = sorted(k for k, v in DOUBLES.items() if issubclass(v, enum.Enum))
CLASSES = sorted(set(DOUBLES) - set(ENUMERATIONS))
# Made by the library alone: their constructors are the doubles' own.
MADE_BY_TENSORRT = set(CLASSES) - {"Builder", "ILogger", "OnnxParser", "Runtime"}


def members(name: str) -> dict[str, Any]:
    """What a double offers: public methods and properties, and a constructor that the program calls."""
    found = {k: v for k, v in vars(getattr(doubles, name)).items() if not k.startswith("_") and k != "world"}
    found = {k: v for k, v in found.items() if inspect.isfunction(v) or isinstance(v, property)}
    if name not in MADE_BY_TENSORRT:
        found["__init__"] = getattr(doubles, name).__init__
    return found


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)[1:]


def documented(text: str, method: str) -> list[list[str]]:
    """Parameter names of every overload in a pybind11 docstring."""
    lists = []
    for line in re.findall(rf"^(?:\d+\. )?{method}\((.*)\)(?: ->|$)", text, re.MULTILINE):
        depth, parts, part = 0, [], ""
        for c in line:
            depth += c in "[(<"
            depth -= c in "])>"
            if c == "," and depth == 0:
                parts.append(part)
                part = ""
            else:
                part += c
        lists.append([p.split(":")[0].strip() for p in (*parts, part)][1:])
    return lists


def fits(mine: list[str], theirs: list[list[str]]) -> bool:
    """Whether some overload takes these parameters: the same names in the same order; what it has more is optional."""
    return any(mine == other[: len(mine)] for other in theirs)


@pytest.mark.parametrize("name", CLASSES)
def test_against_the_real_library(name: str) -> None:
    real = getattr(pytest.importorskip("tensorrt_rtx"), name)
    for member, value in members(name).items():
        assert hasattr(real, member), f"{name}.{member}"
        theirs = getattr(real, member)
        assert isinstance(value, property) == isinstance(theirs, property), f"{name}.{member}"
        if not isinstance(value, property):
            overloads = documented(theirs.__doc__ or "", member)
            assert overloads and fits(parameters(value), overloads), f"{name}.{member}: {overloads}"


@pytest.mark.parametrize("name", CLASSES)
def test_against_the_stubs_of_tensorrt_10(name: str) -> None:
    stub = next(n for n in ast.parse(STUBS.read_text()).body if isinstance(n, ast.ClassDef) and n.name == name)
    functions: dict[str, list[list[str]]] = {}
    fields = {n.target.id for n in stub.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    for node in stub.body:
        if isinstance(node, ast.FunctionDef):
            if any(isinstance(d, ast.Name) and d.id == "property" for d in node.decorator_list):
                fields.add(node.name)
            else:
                functions.setdefault(node.name, []).append([a.arg for a in node.args.args][1:])
    for member, value in members(name).items():
        if isinstance(value, property):
            assert member in fields, f"{name}.{member}"
        else:
            assert member in functions, f"{name}.{member}"
            assert fits(parameters(value), functions[member]), f"{name}.{member}: {functions[member]}"


@pytest.mark.parametrize("name", ENUMERATIONS)
def test_enumerations(name: str) -> None:
    module = pytest.importorskip("tensorrt_rtx")
    real = module.ILogger.Severity if name == "Severity" else getattr(module, name)
    names = {m.name for m in getattr(doubles, name)}
    assert names <= set(real.__members__)
    assert f"class {name}" in STUBS.read_text()
    values = {m.name: int(m) for m in getattr(doubles, name)}
    if name in ("TensorIOMode", "Severity"):
        assert values == {n: int(getattr(real, n)) for n in names}


def test_the_comparison_itself_finds_drift() -> None:
    text = "f(*args, **kwargs)\nOverloaded function.\n\n1. f(self: X, name: str, shape: tuple[int, ...]) -> bool\n"
    overloads = documented(text, "f")
    assert ["name", "shape"] in overloads
    assert not fits(["shape", "name"], overloads) and not fits(["name", "shape", "stream"], overloads)


def test_doubles_take_no_unknown_attribute() -> None:
    engine = doubles.IHostMemory(b"")
    with pytest.raises(AttributeError):
        engine.something = 1  # type: ignore[attr-defined]


def test_the_builder_and_the_runner_type_check_against_the_stubs(tmp_path: Path) -> None:
    """mypy --strict with the stubs in place of the library: a call that TensorRT 10 does not have is an error here."""
    root = Path(__file__).parents[2]
    probe = tmp_path / "probe.py"
    probe.write_text(
        "import tensorrt\n\n\ndef wrong(c: tensorrt.IExecutionContext) -> bool:\n    return c.execute_async_v9(0)\n"
    )
    answer = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", f"--cache-dir={tmp_path / 'cache'}"),
            *("edge_ad/engines/trt.py", "edge_ad/engines/runner.py", str(probe)),
        ],
        cwd=root,
        env={"MYPYPATH": str(STUBS.parents[1]), "PATH": ""},
        capture_output=True,
        text=True,
    )
    ours = [line for line in answer.stdout.splitlines() if line.startswith("edge_ad/")]
    assert ours == [], answer.stdout
    assert '"IExecutionContext" has no attribute "execute_async_v9"' in answer.stdout, answer.stdout + answer.stderr
