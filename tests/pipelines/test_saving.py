"""Saving and loading in this process; tests/loading does it in fresh ones, from folder and Hub."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from loading.worker import edit, sample
from safetensors.torch import load_file, save_file

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


def test_two_versions_in_one_process_stay_apart(make, tmp_path):
    """What one pipeline calls and saves is its own code, whatever was loaded after it."""
    make(is_inpainting=True, vae="haar").save_pretrained(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    for name, function in (("pipeline_mg.py", "count_samples"), ("mg_adapter/modeling_mg_adapter.py", "lay_tiles")):
        path = tmp_path / "other" / name
        changed, count = re.subn(
            rf"^( *)def {function}\(.*?(?=\n\n\n|\n\n *# --)",
            rf"\1def {function}(*args): raise ValueError('other')",
            path.read_text(encoding="utf-8"),
            flags=re.MULTILINE | re.DOTALL,
        )
        assert count == 1
        path.write_text(changed, encoding="utf-8")
    one, other = (
        DiffusionPipeline.from_pretrained(tmp_path / name, trust_remote_code=True) for name in ("one", "other")
    )
    expected = sample(MGPipeline.from_pretrained(tmp_path / "one"))
    assert torch.equal(sample(one), expected)
    with pytest.raises(ValueError, match="^other$"):
        sample(other)
    assert torch.equal(sample(one), expected)
    for pipeline, name in ((one, "one"), (other, "other")):
        pipeline.save_pretrained(tmp_path / f"{name} again")
        for code in ("pipeline_mg.py", "mg_adapter/modeling_mg_adapter.py"):
            assert (tmp_path / f"{name} again" / code).read_text() == (tmp_path / name / code).read_text()


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


@pytest.mark.parametrize("place", ["unet", "text_encoder"])
def test_a_pipeline_with_a_lora_in_it_is_not_saved_and_the_remedies_work(make, tmp_path, place):
    peft = pytest.importorskip("peft")
    pipeline = make()
    targets = ["to_q"] if place == "unet" else ["q_proj"]
    config = peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
    getattr(pipeline, place).add_adapter(config, adapter_name="b")
    with pytest.raises(ValueError, match=f"`{place}` has a LoRA in it.*unload_lora_weights.*fuse_lora"):
        pipeline.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    expected = sample(pipeline)
    pipeline.fuse_lora(components=[place])
    pipeline.unload_lora_weights()
    pipeline.save_pretrained(tmp_path / "saved")
    torch.testing.assert_close(sample(MGPipeline.from_pretrained(tmp_path / "saved")), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["unet", "vae"])
@pytest.mark.parametrize("trusting", [True, False])
def test_weights_that_lack_a_tensor_are_refused(make, tmp_path, name, trusting):
    make().save_pretrained(tmp_path / "saved")
    (path,) = (tmp_path / "saved" / name).glob("*.safetensors")
    weights = load_file(path)
    lost = sorted(weights)[0]
    del weights[lost]
    save_file(weights, path, {"format": "pt"})
    kind, options = (DiffusionPipeline, {"trust_remote_code": True}) if trusting else (MGPipeline, {})
    with pytest.raises(ValueError, match=f"`{name}` lacks weights: 1 were not in its file .{lost}"):
        kind.from_pretrained(tmp_path / "saved", **options)


def test_an_index_that_is_none_is_refused(saved):
    _, folder = saved
    (folder / "model_index.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ValueError, match="must hold an index of components, a JSON object, got list"):
        MGPipeline.from_pretrained(folder)


def test_from_pipe_refuses_what_is_no_pipeline_and_no_type(make):
    with pytest.raises(ValueError, match="takes a pipeline of diffusers, got NoneType"):
        MGPipeline.from_pipe(None)
    with pytest.raises(ValueError, match="must be a type of torch.*got 'half'"):
        MGPipeline.from_pipe(make(text=False), dtype="half")


def test_optional_components_stay_absent(make, tmp_path):
    pipeline = make(text=False)
    pipeline.mg_encoder = pipeline.mg_adapter = None
    pipeline.save_pretrained(tmp_path / "bare")
    again = MGPipeline.from_pretrained(tmp_path / "bare")
    assert again.text_encoder is again.tokenizer is again.mg_encoder is again.mg_adapter is None
