"""Names by which something was imported before work for one version, and warn."""

import importlib
import subprocess
import sys

import pytest

import mg_diffusion.modeling_mg_adapter
import mg_diffusion.modeling_mg_encoder


@pytest.mark.parametrize(
    ("module", "name", "place"),
    [
        ("modeling_mg_encoder", "edge_preserving_smooth", "encoder.views"),
        ("modeling_mg_encoder", "draw_tiles", "encoder.texture"),
        ("modeling_mg_encoder", "read_card", "encoder.granularity_cards"),
        ("modeling_mg_adapter", "random_turns", "adapter.sketch"),
        ("modeling_mg_adapter", "parse_strengths", "adapter.strengths"),
    ],
)
def test_functions_are_found_where_they_lay(module, name, place, monkeypatch):
    old = importlib.import_module(f"mg_diffusion.{module}")
    monkeypatch.delitem(vars(old), name, raising=False)  # what the module itself imports is there without a warning
    with pytest.warns(FutureWarning, match=f"`{name}` lies in `mg_diffusion.{place}` now"):
        found = getattr(old, name)
    assert found is getattr(importlib.import_module(f"mg_diffusion.{place}"), name)


def test_what_never_was_is_not_found():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mg_diffusion.modeling_mg_adapter.nothing  # noqa: B018


def test_the_bench_is_found_by_its_old_name():
    code = "import warnings; warnings.simplefilter('error', FutureWarning); import mg_diffusion.bench"
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "`mg_diffusion.bench` is `mg_diffusion.mg_bench` now" in failed.stderr
    with pytest.warns(FutureWarning):
        old = importlib.import_module("mg_diffusion.bench")
    assert (
        importlib.import_module("mg_diffusion.bench.flags").add_bench_flags and old.__name__ == "mg_diffusion.mg_bench"
    )
