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
    written = {"pipeline.py", "__init__.py"}
    assert {str(path.relative_to(shipped)) for path in shipped.rglob("*.py")} == {*EXPORTED.values(), *written}
    assert (shipped / "pipeline.py").read_text(encoding="utf-8") == "from .pipeline_mg import MGPipeline\n"


@pytest.mark.parametrize("method", ["save_config", "extract_init_dict", "from_pretrained"])
def test_both_models_are_saved_and_loaded_alike(repository, method):
    """A self-contained file cannot import the other's methods."""
    bodies = set()
    for name in ("encoder", "adapter"):
        tree = ast.parse((repository / "mg_diffusion" / f"modeling_mg_{name}.py").read_text(encoding="utf-8"))
        found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == method]
        bodies |= {ast.unparse(node.body) for node in found}
        assert len(found) == 1
    assert len(bodies) == 1
