"""Pipeline files cannot import each other; what they share is copied, and the copies stay the same."""

import ast
import re
from pathlib import Path

import pytest


FOLDER = Path(__file__).resolve().parents[2] / "pipelines"
MARK = re.compile(r"# Copied from pipelines\.(\w+)\.([\w.]+)$")


def definitions(path: Path) -> dict[str, ast.AST]:
    """Functions, methods and classes without methods of a file by qualified name."""
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.ClassDef):
            methods = {f"{node.name}.{part.name}": part for part in node.body if isinstance(part, ast.FunctionDef)}
            found |= methods or {node.name: node}
    return found


def marks(path: Path) -> list[tuple[int, str, str]]:
    """Line below each mark, with the file and the name it says were copied."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [(number, MARK.search(line)) for number, line in enumerate(lines, start=2)]
    return [(number, match[1], match[2]) for number, match in found if match]


def first_line(node: ast.AST) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


COPIES = [(path.name, *mark) for path in sorted(FOLDER.glob("*.py")) for mark in marks(path)]


def test_there_are_copies():
    assert len(COPIES) > 20


@pytest.mark.parametrize(("file", "line", "stem", "name"), COPIES, ids=lambda value: str(value))
def test_a_copy_is_like_its_source(file, line, stem, name):
    source = definitions(FOLDER / f"{stem}.py")[name]
    (copy,) = (node for node in definitions(FOLDER / file).values() if first_line(node) == line)
    assert ast.unparse(copy) == ast.unparse(source)


@pytest.mark.parametrize("copying", ["pipeline_mg_inpaint", "modular_mg"])
def test_shared_definitions_are_marked(copying):
    """What has the same name and body in both files is marked as a copy, so that it is not changed in one alone."""
    ours, theirs = (definitions(FOLDER / f"{stem}.py") for stem in ("pipeline_mg", copying))
    marked = {name for file, _, _, name in COPIES if file == f"{copying}.py"}
    same = {
        name
        for name, node in ours.items()
        for other in [theirs.get(name.replace("MGPipeline", "MGInpaintPipeline"))]
        if other is not None and ast.unparse(other) == ast.unparse(node)
    }
    assert same == marked


@pytest.mark.parametrize("path", sorted(FOLDER.glob("pipeline_*.py")), ids=lambda path: path.stem)
def test_one_pipeline_class_a_file(path):
    """What diffusers looks for in a file of remote code."""
    classes = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
    assert len([node for node in classes if "DiffusionPipeline" in [ast.unparse(base) for base in node.bases]]) == 1
