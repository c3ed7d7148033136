"""Every flag is used, documented and covered, and everything used is a flag."""

import ast
import re
from dataclasses import fields

import pytest

from mg_diffusion.training.flags import flags_of, page, stages
from mg_diffusion.training.settings import Settings


ALL = sorted({name for parser in stages().values() for name in flags_of(parser)})
FIELDS = {field.name for part in Settings.__subclasses__() for field in fields(part)}
PARTS = r"(self\.)?(settings|data|source|supervision|layouts|steps|now)(\.\w+)?"  # what parts are called


@pytest.fixture(scope="module")
def used(repository):
    """Names that are read of `args`, of a part of the settings or of all `flags`, by the files that do."""
    found = {}
    for path in (repository / "mg_diffusion" / "training").glob("*.py"):
        parts = PARTS + ("|self" if path.name in ("settings.py", "sources.py") else "")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(getattr(node, "ctx", None), ast.Load) or path.name == "arguments.py":
                continue  # checked is not used
            owner, name = ast.unparse(getattr(node, "value", node)), getattr(node, "attr", None)
            if isinstance(node, ast.Subscript) and owner == "flags" and isinstance(node.slice, ast.Constant):
                name = node.slice.value
            elif name is None or owner != "args" and not (name in FIELDS and re.fullmatch(parts, owner)):
                continue
            found.setdefault(name, set()).add(path.stem)
    return found


@pytest.fixture(scope="module")
def tests_text(repository):
    return "\n".join(
        path.read_text(encoding="utf-8")
        for path in (repository / "tests").rglob("*.py")
        if path.name != "test_flags.py"
    )


@pytest.mark.parametrize("name", ALL)
def test_every_flag_is_used(name, used):
    assert name in used, f"--{name} is read nowhere in mg_diffusion/training"


def test_everything_used_is_a_flag(used):
    assert (set(used) | FIELDS) - {"stage"} <= set(ALL)


@pytest.mark.parametrize("stage", stages())
def test_a_stage_has_no_flag_that_only_another_reads(stage, used):
    """What only a stage's own file reads belongs to it."""
    own = {"vae": {"vae"}, "base": {"base", "text", "models"}, "adapter": {"adapter"}}
    own["detail"] = {"detail", "detail_flags"}
    others = set().union(*(files for other, files in own.items() if other != stage))
    foreign = [name for name in flags_of(stages()[stage]) if used.get(name, set()) and used[name] <= others]
    assert not foreign


@pytest.mark.parametrize("name", ALL)
def test_every_flag_is_covered_by_a_test(name, tests_text):
    assert re.search(rf"--{name}\b|\b{name}=|[\"']{name}[\"']", tests_text), f"no test gives --{name}"


def test_every_flag_is_documented(repository):
    text = page()
    for stage, parser in stages().items():
        for name, action in flags_of(parser).items():
            assert action.help, f"--{name} of stage {stage} has no help"
            assert all(f"`{option}`" in text for option in action.option_strings)
    written = (repository / "docs" / "training-flags.md").read_text(encoding="utf-8")
    assert written == text, "run: python -m mg_diffusion.training.flags > docs/training-flags.md"
