"""Self-contained files are copied, into the shipped repository and into each other; the copies stay the same."""

import ast

import pytest


EXPORTED = {
    "pipelines/pipeline_mg.py": "pipeline_mg.py",
    "pipelines/pipeline_mg_inpaint.py": "pipeline_mg_inpaint.py",
    "mg_diffusion/modeling_mg_encoder.py": "mg_encoder/modeling_mg_encoder.py",
    "mg_diffusion/modeling_mg_adapter.py": "mg_adapter/modeling_mg_adapter.py",
    "mg_diffusion/modeling_autoencoder_haar.py": "vae/modeling_autoencoder_haar.py",
}


@pytest.mark.parametrize("source", EXPORTED)
def test_the_shipped_model_carries_the_code_of_this_version(repository, source):
    """If this fails, copy the file or export the model again: from disk and Hub, the copy is what runs."""
    copy = repository / "hub_cards" / "mg-bazaar" / EXPORTED[source]
    assert copy.read_text(encoding="utf-8") == (repository / source).read_text(encoding="utf-8")


def test_the_shipped_model_carries_no_other_code(repository):
    shipped = repository / "hub_cards" / "mg-bazaar"
    assert {str(path.relative_to(shipped)) for path in shipped.rglob("*.py")} == {*EXPORTED.values(), "__init__.py"}


def test_both_models_check_what_they_load_alike(repository):
    """A self-contained file cannot import the other's `from_pretrained`."""
    bodies = set()
    for name in ("encoder", "adapter"):
        tree = ast.parse((repository / "mg_diffusion" / f"modeling_mg_{name}.py").read_text(encoding="utf-8"))
        found = [
            node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "from_pretrained"
        ]
        bodies |= {ast.unparse(node.body) for node in found}
        assert len(found) == 1
    assert len(bodies) == 1
