"""MG-Bench of few steps beside that of many."""

import copy
import json
from pathlib import Path

import pytest

from benchmarks import few_steps_bench
from mg_diffusion.loading import embedded_model


@pytest.fixture(scope="module")
def bench():
    return json.loads(Path(embedded_model(), "bench.json").read_text(encoding="utf-8"))


def test_both_are_compared_by_the_same_figures(bench, tmp_path, monkeypatch, capsys):
    few = copy.deepcopy(bench)
    few["settings"]["call"]["num_inference_steps"] = 4
    few["diversity"]["ratio"]["mean"] = 0.125
    paths = [tmp_path / "few.json", tmp_path / "many.json"]
    for path, found in zip(paths, (few, bench), strict=True):
        path.write_text(json.dumps(found), encoding="utf-8")
    monkeypatch.setattr(few_steps_bench, "OUTPUT", tmp_path / "out.json")
    monkeypatch.setattr("sys.argv", ["few_steps_bench", *map(str, paths)])
    assert few_steps_bench.main() == 0
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert found["steps"] == [4, bench["settings"]["call"]["num_inference_steps"]]
    differing = [name for name, value in found["few"].items() if value != found["many"][name]]
    assert differing == ["diversity"] and found["few"]["diversity"] == 0.125
    assert "| diversity | " in capsys.readouterr().out


def test_what_was_not_measured_alike_is_refused(bench):
    other = copy.deepcopy(bench)
    other["settings"]["seed"] = 1
    with pytest.raises(ValueError, match="same pictures, seed and sizes"):
        few_steps_bench.compare(bench, other)
