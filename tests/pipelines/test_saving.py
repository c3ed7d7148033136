"""Saving and loading: folders and Hub repositories that load where no package of ours is installed.

What must hold in a fresh process is checked in subprocesses; one process checks several things, because starting one
takes seconds.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from hub_stand_in import HubStandIn

from mg_diffusion import MGAdapter, MGEncoder
from mg_diffusion.pipelines import MGInpaintPipeline, MGPipeline


# What every fresh process begins with; the functions of it serve in this process too.
PRELUDE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "mg_diffusion":
            raise ModuleNotFoundError(name)

if {is_blocked}:
    sys.meta_path.insert(0, Blocker())

import torch
from diffusers import DiffusionPipeline

REFERENCES = {{"color": ["#c1121f:2", "#fdf0d5"], "shape": torch.linspace(0, 1, 3 * 32 * 32).view(3, 32, 32) ** 2}}

def sample(pipe, **options):
    pipe.set_progress_bar_config(disable=True)
    options = {{"reference_image": REFERENCES, "num_inference_steps": 2, "output_type": "latent", **options}}
    return pipe("a red flower", generator=torch.Generator().manual_seed(0), **options).images

def edit(pipe):
    image = torch.linspace(0, 1, 3 * 20 * 24).view(3, 20, 24)
    mask = torch.zeros(20, 24)
    mask[4:12, 6:15] = 1
    return sample(pipe, image=image, mask_image=mask)
"""
namespace = {}
exec(PRELUDE.format(is_blocked=False), namespace)
sample, edit, REFERENCES = namespace["sample"], namespace["edit"], namespace["REFERENCES"]


def fresh_process(script: str, tmp_path: Path, is_blocked: bool, *arguments: str, **environment: str) -> str:
    """Run a script after the prelude; with `is_blocked`, the package cannot be imported there."""
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf_home"), "PYTHONWARNINGS": "ignore", **environment}
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE.format(is_blocked=is_blocked) + script, *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


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
    assert {path.name for path in folder.glob("*.py")} == {"pipeline_mg.py", "pipeline_mg_inpaint.py"}


def test_nothing_saved_names_a_folder_of_this_machine(saved, tmp_path):
    _, folder = saved
    MGPipeline.from_pretrained(folder).save_pretrained(tmp_path / "again")
    for path in (tmp_path / "again").rglob("*.json"):
        assert str(tmp_path) not in path.read_text(encoding="utf-8"), path


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


def test_a_base_folder_with_encoder_and_adapter_passed_in(make, tmp_path):
    """The way of users of an existing checkpoint: a stock folder, no remote code."""
    from diffusers import StableDiffusionPipeline

    pipeline = make()
    names = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
    parts = {name: pipeline.components[name] for name in names}
    stock = StableDiffusionPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    stock.save_pretrained(tmp_path / "base")
    ours = {"mg_encoder": pipeline.mg_encoder, "mg_adapter": pipeline.mg_adapter}
    again = MGPipeline.from_pretrained(tmp_path / "base", **ours)
    assert torch.equal(sample(again), sample(pipeline))


def test_remote_code_needs_trust(saved):
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        DiffusionPipeline.from_pretrained(saved[1])


ROUND_TRIP = """
folder, again, result = sys.argv[1:]
pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
assert type(pipe).__name__ == "MGPipeline" and "mg_diffusion" not in sys.modules
pipe.save_pretrained(again)
second = DiffusionPipeline.from_pretrained(again, trust_remote_code=True)
third = type(second).from_pretrained(again, trust_remote_code=True)
editing = DiffusionPipeline.from_pretrained(again, custom_pipeline="pipeline_mg_inpaint", trust_remote_code=True)
assert type(editing).__name__ == "MGInpaintPipeline"
editing.save_pretrained(again + "_inpaint")
last = DiffusionPipeline.from_pretrained(again + "_inpaint", trust_remote_code=True)
assert type(last).__name__ == "MGInpaintPipeline"
torch.save([sample(pipe), sample(second), sample(third), edit(editing), edit(last)], result)
"""


def test_round_trips_as_remote_code_without_the_package(saved, tmp_path):
    """save, load, save, load in a process that cannot import the package; identical latents each time."""
    pipeline, folder = saved
    arguments = [str(tmp_path / name) for name in ("saved", "again", "result.pt")]
    fresh_process(ROUND_TRIP, tmp_path, True, *arguments)
    results = torch.load(tmp_path / "result.pt")
    assert all(torch.equal(latents, sample(pipeline)) for latents in results[:3])
    expected = edit(MGInpaintPipeline(**pipeline.components))
    assert all(torch.equal(latents, expected) for latents in results[3:])
    files = {
        name: {path.relative_to(tmp_path / name).as_posix() for path in (tmp_path / name).rglob("*") if path.is_file()}
        for name in ("saved", "again", "again_inpaint")
    }
    assert files["saved"] == files["again"] == files["again_inpaint"]


PUSH = """
from mg_diffusion import MGInpaintPipeline, MGPipeline

folder, result = sys.argv[1:]
MGPipeline.from_pretrained(folder).push_to_hub("someone/tiny", token="a-token")
pipe = MGPipeline.from_pretrained("someone/tiny")  # no trust: the code is that of the installed package
editing = MGInpaintPipeline.from_pretrained("someone/tiny")
assert type(pipe) is MGPipeline and type(editing) is MGInpaintPipeline
torch.save([sample(pipe), edit(editing)], result)
"""

PULL = """
folder, result = sys.argv[1:]
try:
    DiffusionPipeline.from_pretrained("someone/tiny")
    raise AssertionError("ran remote code without trust")
except ValueError as error:
    assert "trust_remote_code=True" in str(error)
pipe = DiffusionPipeline.from_pretrained("someone/tiny", trust_remote_code=True)
assert "mg_diffusion" not in sys.modules
editing = DiffusionPipeline.from_pretrained(
    "someone/tiny", custom_pipeline="pipeline_mg_inpaint", trust_remote_code=True
)
pipe.push_to_hub("someone/again", token="a-token")
again = DiffusionPipeline.from_pretrained("someone/again", trust_remote_code=True)
torch.save([sample(pipe), edit(editing), sample(again)], result)
"""


def test_round_trips_through_a_hub(saved, tmp_path):
    """push, load, push, load; identical latents each time, with the package and without."""
    pipeline, folder = saved
    expected = [sample(pipeline), edit(MGInpaintPipeline(**pipeline.components)), sample(pipeline)]
    with HubStandIn() as hub:
        environment = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*"}
        environment |= {f"HF_HUB_{step}_TIMEOUT": "120" for step in ("ETAG", "DOWNLOAD")}  # on busy machines
        for script, is_blocked in ((PUSH, False), (PULL, True)):
            result = tmp_path / f"result_{is_blocked}.pt"
            fresh_process(script, tmp_path, is_blocked, str(folder), str(result), **environment)
            assert all(map(torch.equal, torch.load(result), expected))
        assert len([name for name in hub.files["someone/tiny"] if name.endswith(".py")]) == 5
        assert hub.files["someone/again"] == hub.files["someone/tiny"]
