"""Saving and loading in this process; tests/loading does it in fresh ones, from folder and Hub."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from loading.worker import edit, sample

from mg_diffusion import MGAdapter, MGEncoder
from mg_diffusion.pipelines import MGInpaintPipeline, MGPipeline


@pytest.fixture
def saved(make, tmp_path) -> tuple[MGPipeline, Path]:
    """A folder, and the pipeline as loaded from it.

    Not the pipeline as saved: weights that lie at other addresses can change the last bit of a matrix product.
    """
    make(is_inpainting=True, vae="haar").save_pretrained(tmp_path / "saved")
    return MGPipeline.from_pretrained(tmp_path / "saved"), tmp_path / "saved"


def test_the_index_names_files_that_are_there(saved):
    _, folder = saved
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == ["pipeline_mg", "MGPipeline"]
    assert index["mg_encoder"] == ["modeling_mg_encoder", "MGEncoder"]
    assert index["mg_adapter"] == ["modeling_mg_adapter", "MGAdapter"]
    assert index["vae"] == ["modeling_autoencoder_haar", "AutoencoderHaar"]
    assert index["unet"] == ["diffusers", "UNet2DConditionModel"]
    for component in ("mg_encoder", "mg_adapter", "vae"):
        assert (folder / component / f"{index[component][0]}.py").is_file()
    assert {path.name for path in folder.glob("*.py")} == {"pipeline.py", "pipeline_mg.py", "pipeline_mg_inpaint.py"}
    assert (folder / "pipeline.py").read_text(encoding="utf-8") == "from .pipeline_mg import MGPipeline\n"
    for name, kind in (("mg_encoder", "MGEncoder"), ("mg_adapter", "MGAdapter")):
        config = json.loads((folder / name / "config.json").read_text(encoding="utf-8"))
        assert config["auto_map"] == {"AutoModel": f"modeling_{name}.{kind}"}


def test_nothing_saved_names_a_folder_of_this_machine(saved, tmp_path):
    _, folder = saved
    MGPipeline.from_pretrained(folder).save_pretrained(tmp_path / "again")
    for path in (tmp_path / "again").rglob("*.json"):
        assert str(tmp_path) not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("place", ["pipelines", "pipelines/pipeline_mg.py", "pipelines/pipeline_mg_inpaint.py"])
def test_source_is_no_custom_pipeline(make, repository, tmp_path, place):
    pipeline = make()
    base = {name: getattr(pipeline, name) for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
    extra = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    StableDiffusionPipeline(**base, **extra).save_pretrained(tmp_path / "base")
    with pytest.raises(ImportError, match="source of a pipeline.*Give `custom_pipeline` a folder"):
        DiffusionPipeline.from_pretrained(
            tmp_path / "base",
            custom_pipeline=str(repository / place),
            trust_remote_code=True,
            mg_encoder=None,
            mg_adapter=None,
        )


def test_explicit_classes_load_an_exported_folder_without_remote_code(saved):
    pipeline, folder = saved
    again = MGPipeline.from_pretrained(folder)
    assert type(again) is MGPipeline and type(again.mg_encoder) is MGEncoder
    assert torch.equal(sample(again), sample(pipeline))
    editing = MGInpaintPipeline.from_pretrained(folder)
    assert type(editing) is MGInpaintPipeline
    assert torch.equal(edit(editing), edit(MGInpaintPipeline(**pipeline.components)))
    trusting = MGInpaintPipeline.from_pretrained(folder, trust_remote_code=True)
    assert torch.equal(edit(trusting), edit(editing))


def test_explicit_classes_take_components_in_place_of_saved_ones(saved):
    pipeline, folder = saved
    adapter = MGAdapter.from_unet(pipeline.unet, pipeline.mg_encoder, num_tokens=2, token_dim=16)
    again = MGPipeline.from_pretrained(folder, mg_adapter=adapter, text_encoder=None, tokenizer=None)
    assert again.mg_adapter is adapter and again.text_encoder is None


@pytest.mark.parametrize("vae", ["kl", "haar"])
def test_every_component_comes_back_the_same(make, tmp_path, vae):
    pipeline = make(vae=vae)
    pipeline.save_pretrained(tmp_path / "saved")
    again = MGPipeline.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(sample(again), sample(pipeline), atol=1e-4, rtol=1e-4)
    for name in ("vae", "text_encoder", "unet", "mg_encoder", "mg_adapter"):
        before, after = (getattr(pipe, name).state_dict() for pipe in (pipeline, again))
        assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def test_optional_components_stay_absent(make, tmp_path):
    pipeline = make(text=False)
    pipeline.mg_encoder = pipeline.mg_adapter = None
    pipeline.save_pretrained(tmp_path / "bare")
    again = MGPipeline.from_pretrained(tmp_path / "bare")
    assert again.text_encoder is again.tokenizer is again.mg_encoder is again.mg_adapter is None
