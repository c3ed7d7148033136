"""Rewrite every definition marked as a copy in `pipelines/` from its source, comments included.

python -m tests.pipelines.fix_copies
"""

import ast
import re
from pathlib import Path


FOLDER = Path(__file__).resolve().parents[2] / "pipelines"
MARK = re.compile(r"# Copied from pipelines\.(\w+)\.([\w.]+)$")


def definitions(source: str) -> dict[str, ast.AST]:
    """Functions, methods and classes without methods of a file by qualified name."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.ClassDef):
            methods = {f"{node.name}.{part.name}": part for part in node.body if isinstance(part, ast.FunctionDef)}
            found |= methods or {node.name: node}
    return found


def lines_of(node: ast.AST) -> slice:
    """The lines of a definition, decorators included."""
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return slice(first - 1, node.end_lineno)


def marks(source: str) -> dict[str, tuple[str, str]]:
    """{qualified name: (file without ending, qualified name there)} of the definitions marked as copies.

    Raises:
        ValueError: for a mark with no definition right below it.
    """
    below = {lines_of(node).start: name for name, node in definitions(source).items()}
    found = {}
    for number, line in enumerate(source.splitlines(), start=1):
        if match := MARK.search(line):
            if number not in below:
                raise ValueError(f"Line {number}, {line.strip()!r}, marks nothing: a definition must follow it.")
            found[below[number]] = match.groups()
    return found


def rewritten(path: Path) -> str:
    """The text of a file with its copies as their sources are now.

    Raises:
        ValueError: for a mark that names no definition, or a copy, or has none below it.
    """
    text = path.read_text(encoding="utf-8")
    lines, own, copies, sources = text.splitlines(), definitions(text), marks(text), {}
    for stem in {stem for stem, _ in copies.values()}:
        there = path.with_name(f"{stem}.py")
        source = there.read_text(encoding="utf-8") if there.is_file() else ""
        copied = marks(source)
        its_lines = source.splitlines()
        sources |= {
            (stem, name): its_lines[lines_of(node)] for name, node in definitions(source).items() if name not in copied
        }
    for name, source in sorted(copies.items(), key=lambda item: -own[item[0]].lineno):
        if source not in sources:
            raise ValueError(
                f"{path.name}: {name} is marked as a copy of pipelines.{'.'.join(source)}, which is no definition, or a "
                f"copy itself. Name the first file that has it."
            )
        lines[lines_of(own[name])] = sources[source]
    return "\n".join(lines) + "\n"


def main() -> None:
    for path in sorted(FOLDER.glob("*.py")):
        text = rewritten(path)
        if text != path.read_text(encoding="utf-8"):
            path.write_text(text, encoding="utf-8")
            print(f"rewrote copies in {path.name}")


if __name__ == "__main__":
    main()
