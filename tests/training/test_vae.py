"""Stage `vae`: a few steps, the same after an interruption, and weights that stage `base` takes."""

import json
import math
import shutil

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from safetensors.torch import load_file

from mg_diffusion.training import base, vae
from mg_diffusion.training.arguments import parse_args

from .conftest import SIZE


@pytest.fixture(scope="module")
def trained(flags, tmp_path_factory):
    output = tmp_path_factory.mktemp("vae")
    return output, vae.run(parse_args(flags("vae", output, block_out_channels="16 16", latent_channels=4)))


def test_reconstruction_is_measured_and_shown(trained):
    output, records = trained
    assert [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()] == records
    measured = [record for record in records if "val_psnr" in record]
    assert [record["step"] for record in measured] == [2, 4]
    assert all(0 < record["val_psnr"] < 60 and record["val_loss"] > 0 for record in measured)
    assert any(math.isfinite(record.get("loss", math.nan)) for record in records)
    assert PIL.Image.open(output / "grid-000004.png").size == (2 * 32, 2 * 32)


def test_the_grid_shows_pictures_above_their_reconstructions(trained, folder):
    grid = np.asarray(PIL.Image.open(trained[0] / "grid-000004.png"))[:32, :32]
    drawn = [np.asarray(PIL.Image.open(path)) for path in sorted((folder / "val").glob("*.png"))]
    assert any((np.abs(grid.astype(int) - picture) <= 1).all() for picture in drawn)


def test_weights_load_and_latents_have_unit_deviation(trained, pictures):
    loaded = AutoencoderKL.from_pretrained(trained[0] / "weights")
    images = pictures.whole.float() / 127.5 - 1
    with torch.no_grad():
        latents = loaded.encode(images).latent_dist.sample() * loaded.config.scaling_factor
    assert latents.shape == (4, 4, 16, 16) and latents.std().item() == pytest.approx(1, abs=0.1)


def test_a_resumed_run_ends_with_the_same_weights_bit_for_bit(trained, flags, tmp_path):
    shutil.copytree(trained[0] / "checkpoint-2", tmp_path / "checkpoint-2")
    options = {"block_out_channels": "16 16", "latent_channels": 4, "resume_from_checkpoint": "latest"}
    vae.run(parse_args(flags("vae", tmp_path, **options)))
    for name in ("checkpoint-4/model.safetensors", "weights/diffusion_pytorch_model.safetensors"):
        one, other = load_file(trained[0] / name), load_file(tmp_path / name)
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one), name
    configs = [json.loads((path / "weights" / "config.json").read_text()) for path in (trained[0], tmp_path)]
    assert configs[0]["scaling_factor"] == configs[1]["scaling_factor"]


@pytest.mark.parametrize("factor", [2, 4])
def test_stage_base_trains_on_the_latents_of_any_factor(trained, flags, tmp_path, factor):
    place = trained[0] / "weights"
    if factor == 4:
        place = tmp_path / "vae"
        vae.build_vae(4, [16, 16, 16], SIZE).save_pretrained(place)
    output = tmp_path / "run"
    records = base.run(parse_args(flags("base", output, vae=place, max_train_steps=1)))
    assert all(math.isfinite(value) for record in records for value in record.values())
    assert any("val_loss" in record for record in records) and (output / "grid-000001.png").is_file()
    pipeline = DiffusionPipeline.from_pretrained(output / "weights", trust_remote_code=True)
    assert pipeline.mg_adapter.config.map_stride == pipeline.vae_scale_factor == factor


def test_without_a_validation_split_the_training_loss_is_all(flags, folder, tmp_path):
    shutil.copytree(folder / "train", tmp_path / "data" / "train")
    options = {"train_data_dir": tmp_path / "data", "block_out_channels": "16", "max_train_steps": 1}
    records = vae.run(parse_args(flags("vae", tmp_path / "run", **options)))
    assert [set(record) >= {"loss"} for record in records] == [True]
    assert not list((tmp_path / "run").glob("grid-*"))


def test_a_picture_is_a_function_of_seed_and_index(pictures):
    one, again, other = (vae.VaeSamples(pictures, 20, seed) for seed in (0, 0, 1))
    pairs = [(one[i]["image"], again[i]["image"], other[i]["image"]) for i in range(20)]
    assert all(torch.equal(a, b) for a, b, _ in pairs) and not all(torch.equal(a, c) for a, _, c in pairs)
    assert len(one) == 20 and all(-1 <= a.min() and a.max() <= 1 for a, _, _ in pairs)
