"""Every cell of the matrix of loading, in a fresh process; and the page that shows the matrix."""

import pytest
import torch

from .matrix import COLUMNS, MATRIX, PAGE, rows


def is_same(one: dict, other: dict) -> bool:
    """Whether latents or weights, classes and types are the same, bit for bit."""
    if one.keys() != other.keys() or one["class"] != other["class"] or one.get("dtypes") != other.get("dtypes"):
        return False
    if "latents" in one:
        return torch.equal(one["latents"], other["latents"])
    pairs = [(one["weights"][key], other["weights"].get(key)) for key in one["weights"]]
    return len(pairs) == len(other["weights"]) and all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize("cell", MATRIX, ids=lambda cell: cell.id)
def test_cell(cell, outcome_of, expected):
    outcome = outcome_of(cell)
    if cell.verdict != "yes":
        assert cell.verdict.strip('"') in outcome.get("error", f"made a {outcome.get('class')}")
        return
    assert "error" not in outcome, outcome["error"]
    assert is_same(outcome, expected[cell.gives])


def test_outcomes_differ(expected):
    """What is lost on the way, an adapter or a type, is seen."""
    names = list(expected)
    assert not [(a, b) for a in names for b in names if a != b and is_same(expected[a], expected[b])]


def test_the_whole_page_is_in_the_matrix():
    found = rows(PAGE.read_text(encoding="utf-8"))
    assert len(found) == 38 and len({row["way"] for row in found}) == len(found)
    verdicts = [verdict for row in found for column, verdict in row.items() if column in COLUMNS]
    assert len(verdicts) == 26 * 4 + 12 * 2
    assert all(verdict in ("yes", "-") or verdict.strip('"') != verdict for verdict in verdicts)
    tested = {cell.id.rpartition(" ")[0] for cell in MATRIX}
    assert tested >= {f"{row['way']}, {c}" for row in found for c in row.keys() & COLUMNS.keys() if row[c] != "-"}
    assert len({cell.id for cell in MATRIX}) == len(MATRIX)


@pytest.mark.parametrize("way", ["installed", "not installed"])
def test_what_is_pushed_brings_its_code(way, outcome_of, hub):
    """The same code files and index as in the exported repository; for an adapter alone, its own file."""
    for cell in MATRIX:
        if cell.id.endswith(f", {way} Hub"):
            outcome_of(cell)
    repo, again = hub.files["someone/repo"], hub.files["someone/again"]
    code = [name for name in repo if name.endswith((".py", "model_index.json"))]
    assert len(code) == 6 and all(again[name] == repo[name] for name in code)
    for repository, folder in (("someone/adapter", ""), ("someone/pair", "mg_adapter/")):
        pushed = hub.files[repository]
        assert pushed[f"{folder}modeling_mg_adapter.py"] == repo["mg_adapter/modeling_mg_adapter.py"]
        assert b'"auto_map"' in pushed[f"{folder}config.json"]
