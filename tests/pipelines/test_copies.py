"""Pipeline files cannot import each other; what they share is copied, and the copies stay the same."""

import ast
from pathlib import Path

import pytest

from .fix_copies import FOLDER, definitions, marks, rewritten


# A definition is marked with the first of these that has it.
PIPELINES = sorted(FOLDER.glob("pipeline_*.py"))
FILES = [*PIPELINES, FOLDER / "modular_mg.py"]


def test_there_are_copies():
    assert len(PIPELINES) == 4
    assert [len(marks(path.read_text(encoding="utf-8"))) > 20 for path in PIPELINES] == [False, True, True, True]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_copies_are_like_their_sources(path):
    """If this fails, change the source and run `make fix-copies`."""
    assert rewritten(path) == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shared_definitions_are_marked(path):
    """What has the same name and body in an earlier file is marked as a copy, so that it is not changed in one alone."""

    def by_name_and_body(source: str) -> dict[tuple[str, str], str]:
        return {(name.split(".")[-1], ast.unparse(node)): name for name, node in definitions(source).items()}

    text, first = path.read_text(encoding="utf-8"), {}
    for earlier in FILES[: FILES.index(path)]:
        for key, name in by_name_and_body(earlier.read_text(encoding="utf-8")).items():
            first.setdefault(key, (earlier.stem, name))
    expected = {name: first[key] for key, name in by_name_and_body(text).items() if key in first}
    assert marks(text) == expected


SOURCE = "class A:\n    def f(self):\n        # why\n        return 1\n\n    def g(self):\n        return 2\n"
COPY = "class B:\n    # Copied from pipelines.pipeline_a.A.f\n    def f(self):\n        return 3  # old\n\n    x = 1\n"


def test_a_copy_is_rewritten_word_for_word_and_nothing_else_is(tmp_path):
    (tmp_path / "pipeline_a.py").write_text(SOURCE, encoding="utf-8")
    copy = tmp_path / "pipeline_b.py"
    copy.write_text(COPY, encoding="utf-8")
    assert rewritten(copy) == COPY.replace("return 3  # old", "# why\n        return 1")
    assert rewritten(tmp_path / "pipeline_a.py") == SOURCE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (COPY.replace("A.f", "A.h"), "B.f is marked as a copy of pipelines.pipeline_a.A.h, which is no definition"),
        (COPY.replace("pipeline_a", "pipeline_c"), "pipelines.pipeline_c.A.f, which is no definition"),
        (COPY.replace("pipeline_a.A", "pipeline_b.B"), "pipelines.pipeline_b.B.f, which is .* a copy itself"),
        (COPY.replace("    def f", "\n    def f"), "marks nothing"),
    ],
    ids=["name", "file", "copy", "place"],
)
def test_marks_that_name_no_source_are_refused(tmp_path: Path, text, message):
    (tmp_path / "pipeline_a.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "pipeline_b.py").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        rewritten(tmp_path / "pipeline_b.py")


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.stem)
def test_one_pipeline_class_a_file(path):
    """What diffusers looks for in a file of remote code."""
    classes = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
    assert len([node for node in classes if "DiffusionPipeline" in [ast.unparse(base) for base in node.bases]]) == 1
