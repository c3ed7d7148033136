"""Stage `distill`: a UNet of few steps from one of many."""

import json

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from pipelines.tiny import tiny_components

from mg_diffusion import MGPipeline
from mg_diffusion.pipelines.components import guidance_embedding, reads_guidance
from mg_diffusion.training.arguments import parse_args
from mg_diffusion.training.distill import (
    build_student,
    few_step_scheduler,
    landing_to_prediction,
    run,
    split_prediction,
)
from mg_diffusion.training.objective import target_of
from training.test_adapter_stage import save_base


KINDS = ("epsilon", "v_prediction", "sample")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("bases") / "base")


@pytest.fixture(scope="module")
def whole(flags, base, tmp_path_factory):
    """A run of a few steps, and its records."""
    output = tmp_path_factory.mktemp("distill")
    return output, run(parse_args(arguments(flags, output, base)))


def arguments(flags, output, base, **changed):
    changed = {"pretrained_model_name_or_path": base, "block_out_channels": None, **changed}
    return flags("distill", output, **changed)


def test_a_student_begins_as_its_teacher_whatever_guidance_it_reads(tmp_path):
    teacher = tiny_components(tmp_path)["unet"]
    student = build_student(teacher)
    assert reads_guidance(student) and not reads_guidance(teacher)
    latents, text = (
        torch.rand(2, teacher.config.in_channels, 8, 8),
        torch.rand(2, 5, teacher.config.cross_attention_dim),
    )
    with torch.no_grad():
        expected = teacher(latents, 500, text).sample
        told = guidance_embedding(student, 3.0, latents)
        assert torch.equal(student(latents, 500, text, timestep_cond=told).sample, expected)
        student.time_embedding.cond_proj.weight += 0.1
        assert not torch.equal(student(latents, 500, text, timestep_cond=told).sample, expected)
    assert torch.equal(build_student(student).time_embedding.cond_proj.weight, student.time_embedding.cond_proj.weight)


@pytest.mark.parametrize("kind", KINDS)
def test_one_step_of_the_target_leads_where_ddim_says(kind):
    scheduler = DDIMScheduler(prediction_type=kind, clip_sample=False, timestep_spacing="trailing")
    scheduler.set_timesteps(4)
    noisy, predicted = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    t, then = scheduler.timesteps[:2]
    landed = scheduler.step(predicted, t, noisy).prev_sample
    alpha, end = (scheduler.alphas_cumprod[one].expand(2).view(-1, 1, 1, 1) for one in (t, then))
    picture, noise = split_prediction(kind, noisy, predicted, alpha)
    assert torch.allclose(end.sqrt() * picture + (1 - end).sqrt() * noise, landed, atol=1e-4)
    picture, noise = landing_to_prediction(noisy, landed, alpha, end)
    again = target_of(scheduler, kind, picture, noise, t.expand(2))
    assert torch.allclose(scheduler.step(again, t, noisy).prev_sample, landed, atol=1e-3)


def test_the_weights_are_sampled_in_four_steps_of_one_row(whole, base, tmp_path):
    output, records = whole
    folder = output / "weights"
    assert sorted(one.name for one in folder.iterdir() if one.is_dir()) == ["scheduler", "unet"]
    assert records[-1]["step"] == 4 and records[-1]["val_loss"] > 0
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    pipe = MGPipeline.from_pretrained(base, unet=unet, scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    rows = []
    unet.register_forward_pre_hook(lambda module, given: rows.append(len(given[0])))

    def paint(**options):
        return pipe("a leaf", generator=torch.Generator().manual_seed(0), output_type="pt", **options).images

    first = paint(guidance_scale=1.5)
    assert rows == [1, 1, 1, 1] and torch.equal(paint(), first)
    with torch.no_grad():
        unet.time_embedding.cond_proj.weight.normal_()
    assert not torch.equal(paint(guidance_scale=3.0), paint(guidance_scale=1.0))
    stock = StableDiffusionPipeline.from_pretrained(
        base, unet=unet, scheduler=scheduler, safety_checker=None, requires_safety_checker=False
    )
    stock.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 4, "guidance_scale": 2.0, "output_type": "pt"}
    expected = stock("a leaf", generator=torch.Generator().manual_seed(0), **options).images
    assert torch.allclose(paint(guidance_scale=2.0), expected, atol=1e-5)


def test_the_loss_of_held_out_samples_falls(flags, base, tmp_path):
    args = parse_args(
        arguments(
            flags, tmp_path, base, max_train_steps=40, learning_rate=5e-5, validation_steps=40, lr_warmup_steps=1
        )
        + ["--validation_at_start"]
    )
    records = [one for one in run(args) if "val_loss" in one]
    assert records[0]["step"] == 0 and records[-1]["val_loss"] < records[0]["val_loss"]


def test_teacher_and_parts_stay_as_they_are(whole, base):
    before = UNet2DConditionModel.from_pretrained(base, subfolder="unet")
    after = UNet2DConditionModel.from_pretrained(whole[0] / "weights", subfolder="unet")
    assert any(not torch.equal(value, after.state_dict()[name]) for name, value in before.state_dict().items())
    card = (whole[0] / "weights" / "README.md").exists()
    assert not card  # `run` alone writes none; the command does
    config = json.loads((whole[0] / "training_config.json").read_text())
    assert config["stage"] == "distill" and config["resolution"] == 32


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"teacher_steps": 6, "num_steps": 4}, "--teacher_steps must be two, three, ... times --num_steps 4, got 6"),
        ({"teacher_steps": 4, "num_steps": 4}, "--teacher_steps must be two"),
        ({"max_guidance": 0.5}, "--max_guidance must be a number of at least 1, got 0.5"),
        ({"num_steps": 0}, "--num_steps must be at least 1"),
        ({"layout_size": 64, "resolution": None}, "--layout_size needs --resolution"),
        ({"materials_dir": "x"}, "--materials_dir needs --layout_size"),
    ],
)
def test_contradictions_are_refused(flags, base, tmp_path, capsys, changed, said):
    with pytest.raises(SystemExit):
        parse_args(arguments(flags, tmp_path, base, **changed))
    assert said in capsys.readouterr().err


def test_steps_begin_at_the_noisiest_timestep(tmp_path):
    scheduler = few_step_scheduler(DDIMScheduler(steps_offset=1, timestep_spacing="leading"))
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == [999, 749, 499, 249]
