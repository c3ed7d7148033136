"""Targets are read from the figures of a run; a missed one is said to be missed."""

import json

import pytest

from mg_diffusion.mg_bench.targets import NEAREST, targets, targets_table


def figures(repository):
    return json.loads((repository / "hub_cards" / "mg-bazaar" / "bench.json").read_text(encoding="utf-8"))


def test_the_shipped_figures_have_every_target(repository):
    found = list(targets(figures(repository)))
    titles = [title for title, *_ in found]
    assert len(titles) == len(set(titles)) == 26
    rows = targets_table(figures(repository)).splitlines()
    assert len(rows) == 2 + len(found) and all(row.endswith(("| yes |", "| **no** |")) for row in rows[2:])


def test_held_and_missed_go_by_the_direction_of_the_target(repository):
    result = figures(repository)
    method = result["retrieval_synthetic"]["method"]
    method["top1"]["color"]["mean"], method["top1"]["texture"]["mean"] = NEAREST["synthetic"]["color"], 0.59
    method["leak"]["shape"]["mean"] = 0.06
    result["editing_fidelity"]["method"]["exactness"]["pixels"] = 1
    table = targets_table(result)
    for row in (
        "| own reference nearest, rendered pictures, color | 0.900 | >= 0.9 | yes |",
        "| own reference nearest, rendered pictures, texture | 0.590 | >= 0.6 | **no** |",
        "| another reference nearest, rendered pictures, worst | 0.060 | <= 0.05 | **no** |",
        "| edits: pixels changed outside the mask | 1.000 | <= 0 | **no** |",
    ):
        assert row in table


@pytest.mark.parametrize("name", ["retrieval_synthetic", "leakage_photographic", "editing_fidelity", "diversity"])
def test_a_section_that_was_not_run_has_no_target(repository, name):
    result = figures(repository)
    count = len(list(targets(result)))
    del result[name]
    assert len(list(targets(result))) < count
    assert targets_table({"settings": {}}).count("\n") == 1
