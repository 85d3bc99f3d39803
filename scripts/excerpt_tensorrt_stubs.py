"""Write the excerpt of the published type stubs of TensorRT 10 that the tests hold this program against.

The stubs (``tensorrt-stubs`` on PyPI, MIT licence) require the whole of TensorRT, and some lines are no Python;
so the tests carry the few classes that this program uses. Docstrings are left out; names of classes outside the
excerpt become ``Any``.

    pip download --no-deps tensorrt-stubs==10.13.0.35.1
    python scripts/excerpt_tensorrt_stubs.py tensorrt_stubs-10.13.0.35.1-py3-none-any.whl
"""

from __future__ import annotations

import argparse
import ast
import builtins
import re
import zipfile
from pathlib import Path

CLASSES = (
    "Builder",
    "BuilderFlag",
    "DataType",
    "Dims",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "IHostMemory",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "ITensor",
    "ITimingCache",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "ParserError",
    "Runtime",
    "TensorIOMode",
)
TARGET = Path(__file__).parents[1] / "tests/engines/stubs/tensorrt/__init__.pyi"
KNOWN = {*CLASSES, *dir(builtins), "typing", "typing_extensions", "Severity", "staticmethod", "property"}


class Outside(ast.NodeTransformer):
    """Classes that the excerpt does not hold become ``typing.Any``; docstrings go."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        known = isinstance(node.ctx, ast.Store) or node.id in KNOWN or not node.id[:1].isupper()
        return node if known else ast.parse("typing.Any", mode="eval").body

    def visit_arg(self, node: ast.arg) -> ast.arg:
        self.generic_visit(node)
        node.annotation = _typed(node.annotation)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        self.generic_visit(node)
        node.body = [n for n in node.body if not _docstring(n)] or [ast.Expr(ast.Constant(...))]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.body = [ast.Expr(ast.Constant(...))]
        node.returns = _typed(node.returns)
        return node


def _typed(annotation: ast.expr | None) -> ast.expr | None:
    """An ellipsis, which the generator wrote for a type that it did not know, becomes ``typing.Any``."""
    unknown = isinstance(annotation, ast.Constant) and annotation.value is ...
    return ast.parse("typing.Any", mode="eval").body if unknown else annotation


def _docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def excerpt(source: str, licence: str, version: str) -> str:
    """The excerpt as the text of a ``.pyi`` file."""
    # As published some lines are no Python, so each class is cut out as text and parsed by itself.
    source = re.sub(r"(power: Weights = None, channel_axis: int)\)", r"\1 = ...)", source)
    texts = {m[1]: m[0] for m in re.finditer(r"^class (\w+)\b.*?(?=^class |\Z)", source, re.MULTILINE | re.DOTALL)}
    classes = {name: ast.parse(text).body[0] for name, text in texts.items() if name in CLASSES}
    missing = [c for c in CLASSES if c not in classes]
    if missing:
        raise SystemExit(f"the stubs lack {', '.join(missing)}")
    notice = "\n".join(f"# {line}".rstrip() for line in licence.strip().splitlines())
    body = "\n\n".join(ast.unparse(ast.fix_missing_locations(Outside().visit(classes[c]))) for c in CLASSES)
    head = f"# Excerpt of tensorrt-stubs {version}, written by scripts/excerpt_tensorrt_stubs.py.\n#\n{notice}\n"
    imports = "from __future__ import annotations\n\nimport typing\nimport typing_extensions\n\n__version__: str\n\n"
    return f"{head}\n{imports}{body}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, default=TARGET)
    args = parser.parse_args()
    with zipfile.ZipFile(args.wheel) as wheel:
        source = wheel.read("tensorrt_bindings/tensorrt.pyi").decode()
        licence = next(n for n in wheel.namelist() if n.endswith("LICENSE"))
        text = excerpt(source, wheel.read(licence).decode(), args.wheel.name.split("-")[1])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text, encoding="utf-8")
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
