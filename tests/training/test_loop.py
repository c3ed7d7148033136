"""A run of four steps, the same run interrupted after two, and what both leave behind."""

import json
import math
import shutil

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file

from mg_diffusion.pipelines import MGPipeline
from mg_diffusion.training.arguments import parse_args
from mg_diffusion.training.base import run
from mg_diffusion.training.loop import Averaged
from mg_diffusion.training.validation import LABEL_WIDTH


@pytest.fixture(scope="module")
def whole(flags, tmp_path_factory):
    """An uninterrupted run and its records."""
    output = tmp_path_factory.mktemp("whole")
    args = parse_args(flags("base", output, gradient_accumulation_steps=2, report_to="tensorboard"))
    return output, run(args)


def test_a_resumed_run_ends_with_the_same_weights_bit_for_bit(whole, flags, tmp_path):
    options = {"gradient_accumulation_steps": 2, "resume_from_checkpoint": "latest", "validation_steps": 3}
    shutil.copytree(whole[0] / "checkpoint-2", tmp_path / "checkpoint-2")
    shutil.copytree(whole[0] / "checkpoint-4", tmp_path / "unfinished-4")  # as a crash while saving leaves it
    records = run(parse_args(flags("base", tmp_path, **options)))
    for name in ("checkpoint-4/model.safetensors", "weights/unet/diffusion_pytorch_model.safetensors"):
        one, other = load_file(whole[0] / name), load_file(tmp_path / name)
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one), name
    lasts = [[record for record in lines if "val_loss" in record][-1] for lines in (whole[1], records)]
    assert lasts[0] == lasts[1]
    assert not list(tmp_path.glob("unfinished-*"))


def test_records_are_returned_and_logged(whole):
    output, records = whole
    assert [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()] == records
    training, *validation = (
        [record for record in records if name in record] for name in ("loss", "val_loss", "val_loss_t400-599")
    )
    assert [record["step"] for record in training] == [4]
    dropped = {f"dropped_{name}" for name in ("color", "texture", "shape")}
    health = {"grad_norm", "clipped", "ema_distance", "lr"} | dropped
    assert set(training[0]) == {"step", "loss", "samples_per_second", "elapsed"} | health
    assert [[record["step"] for record in records] for records in validation] == [[2, 4]] * 2
    assert all(math.isfinite(value) for record in records for value in record.values())
    assert list((output / "logs").rglob("events.out.tfevents*"))


def test_the_configuration_is_that_of_the_run(whole, flags):
    written = json.loads((whole[0] / "training_config.json").read_text())
    args = parse_args(flags("base", whole[0], gradient_accumulation_steps=2, report_to="tensorboard"))
    assert written == vars(args)


@pytest.mark.parametrize("step", [2, 4])
def test_the_grid_has_references_and_results_of_every_column(whole, step):
    grid = PIL.Image.open(whole[0] / f"grid-{step:06d}.png")
    assert grid.size == (LABEL_WIDTH + 2 * 128, 8 * 128)
    labels, rows = np.split(np.asarray(grid, np.float64).reshape(8, 128, -1, 3), [LABEL_WIDTH], 2)
    assert (rows.std((1, 2, 3)) > 1).all() and (labels.min((1, 2, 3)) == 0).all()
    assert len({label.tobytes() for label in labels}) == 8
    # The second column shows as color what the first shows as texture.
    np.testing.assert_array_equal(rows[0][:, 128:], rows[1][:, :128])


def test_the_weights_are_a_pipeline_of_the_averaged_weights(whole):
    pipeline = DiffusionPipeline.from_pretrained(whole[0] / "weights", trust_remote_code=True)
    pipeline.set_progress_bar_config(disable=True)
    trained = load_file(whole[0] / "checkpoint-4" / "model.safetensors")
    saved = pipeline.unet.state_dict()
    assert trained.keys() >= {f"unet.{key}" for key in saved}
    assert any(not torch.equal(trained[f"unet.{key}"], value) for key, value in saved.items())
    picture = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    image = pipeline("a photo", reference_image={"color": picture, "shape": picture}, num_inference_steps=2).images[0]
    assert image.size == (32, 32)


def test_a_checkpoint_holds_all_that_a_run_goes_on_with(whole):
    names = {path.name for path in (whole[0] / "checkpoint-2").iterdir()}
    assert names >= {"model.safetensors", "optimizer.bin", "scheduler.bin", "random_states_0.pkl", "manifest.json"}
    assert {"custom_checkpoint_0.pkl", "custom_checkpoint_1.pkl"} <= names  # the average, the mean loss


def test_fine_tuning_starts_from_the_weights_and_needs_no_validation_split(whole, flags, folder, tmp_path):
    data, output = tmp_path / "data", tmp_path / "run"
    shutil.copytree(folder / "train", data / "train")
    own = {"block_out_channels": None, "text_width": None}
    options = {"train_data_dir": data, "init_from": whole[0] / "weights", "max_train_steps": 1, "learning_rate": 1e-9}
    records = run(parse_args(flags("base", output, **options, **own)))
    assert [set(record) >= {"loss"} for record in records] == [True] and not list(output.glob("grid-*"))
    name = "unet/diffusion_pytorch_model.safetensors"
    before, after = load_file(whole[0] / "weights" / name), load_file(output / "weights" / name)
    assert all(torch.allclose(before[key], after[key], atol=1e-6) for key in before)


@pytest.mark.parametrize("kind", ["nowhere", "empty", "foreign code", "no adapter"])
def test_what_is_no_pipeline_of_this_stage_is_no_start(whole, flags, tmp_path, kind):
    place = tmp_path / "start"
    if kind == "empty":
        place.mkdir()
    elif kind == "foreign code":  # runs only where someone trusts it
        shutil.copytree(whole[0] / "weights", place)
        (place / "vae" / "modeling_autoencoder_haar.py").rename(place / "vae" / "foreign_codec.py")
        index = json.loads((place / "model_index.json").read_text())
        (place / "model_index.json").write_text(json.dumps({**index, "vae": ["foreign_codec", "AutoencoderHaar"]}))
    elif kind == "no adapter":
        MGPipeline.from_pretrained(whole[0] / "weights", mg_adapter=None).save_pretrained(place)
    message = {"no adapter": r"lacks \['mg_adapter'\]", "foreign code": "trust_remote_code"}.get(kind, "")
    changed = {"init_from": place, "block_out_channels": None, "text_width": None}
    with pytest.raises(ValueError, match=f"(?s)--init_from must be the `weights` of a run .*start'.*{message}"):
        run(parse_args(flags("base", tmp_path / "run", **changed)))


def test_the_average_is_in_place_only_inside_the_block():
    model = torch.nn.Linear(2, 1)
    averaged = Averaged(model, 0.5)
    first = model.weight.detach().clone()
    for _ in range(3):
        with torch.no_grad():
            model.weight += 1
        averaged.step()
    last = model.weight.detach().clone()
    with averaged:
        assert (model.weight > first).all() and (model.weight < last).all()
        average = model.weight.detach().clone()
    assert torch.equal(model.weight, last)
    model.bias.requires_grad_(False)
    assert Averaged(model, 0.5).distance() == 0
    averaged.parameters[1].data.zero_()
    averaged.ema.shadow_params[1].zero_()
    assert averaged.distance() == pytest.approx(((average - last).norm() / last.norm()).item())
