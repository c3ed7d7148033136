"""Schedulers that do not know what the UNet predicts, lose the noise it begins in, or are for other calls are refused at once."""

import json
import re

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from mg_diffusion.pipelines import MGInpaintPipeline
from mg_diffusion.pipelines.modular_mg import MGBlocks
from mg_diffusion.pipelines.schedulers import check_scheduler, set_steps

from .tiny import picture, references, seeded


SAMPLE = {"prediction_type": "sample", "beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "trailing"}
VELOCITY = {
    "prediction_type": "v_prediction",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "timestep_spacing": "trailing",
}
pytestmark = pytest.mark.filterwarnings("ignore")  # of diffusers and numpy, about schedulers
UNKNOWN = (
    "EulerAncestralDiscreteScheduler KDPM2DiscreteScheduler KDPM2AncestralDiscreteScheduler PNDMScheduler".split()
)
GOOD = "DDIM DDPM EulerDiscrete DPMSolverMultistep UniPCMultistep TCD LCM".split()


def scheduler_of(name, is_terminal=True, **config):
    base = DDIMScheduler(clip_sample=False, rescale_betas_zero_snr=is_terminal, **config)
    return getattr(diffusers, name).from_config(base.config)


@pytest.mark.parametrize("name", [*UNKNOWN, "EDMEulerScheduler", "FlowMatchEulerDiscreteScheduler"])
@pytest.mark.parametrize("place", ["generate", "edit", "modular"])
def test_what_does_not_know_the_prediction_is_refused_before_anything_is_computed(make, monkeypatch, place, name):
    kind = {"kind": MGInpaintPipeline} if place == "edit" else {}
    pipeline, given = make(**kind), {"prompt": "a", "num_inference_steps": 4, "reference_image": references()}
    given |= {"image": picture(1, 16, 16), "mask_image": torch.ones(16, 16)} if kind else {}
    pipeline.scheduler = scheduler_of(name, **SAMPLE)
    for part in (pipeline.text_encoder, pipeline.mg_encoder, pipeline.unet, pipeline.vae):
        monkeypatch.setattr(part, "forward", None)
    if place == "modular":
        modular = MGBlocks().init_pipeline()
        modular.update_components(**pipeline.components)
        pipeline, given = modular, {**given, "output": "images"}
    with pytest.raises(
        ValueError, match=f"{name} does not know predictions of the type 'sample'.*Use for example DDIM"
    ):
        pipeline(**given)


@pytest.mark.parametrize("name", ["DEISMultistep", "LMSDiscrete", "PNDM", "HeunDiscrete", "DPMSolverSinglestep"])
def test_what_does_not_begin_in_pure_noise_is_refused(make, name):
    pipeline = make(text=False)
    pipeline.scheduler = scheduler_of(f"{name}Scheduler", **VELOCITY)
    with pytest.raises(ValueError, match=f"{name}Scheduler does not know `rescale_betas_zero_snr`.*keeps 0.068"):
        pipeline(num_inference_steps=4)
    pipeline.scheduler = scheduler_of(f"{name}Scheduler", is_terminal=False, **VELOCITY)
    assert torch.isfinite(pipeline(num_inference_steps=4, output_type="pt", generator=seeded()).images).all()


def test_what_overshoots_from_pure_noise_is_refused(make):
    pipeline = make(text=False)
    pipeline.scheduler = scheduler_of("HeunDiscreteScheduler", **SAMPLE)
    with pytest.raises(ValueError, match="HeunDiscreteScheduler evaluates the UNet 2 times a step, which overshoots"):
        pipeline(num_inference_steps=4)


@pytest.mark.parametrize("config", [SAMPLE, VELOCITY], ids=["sample", "velocity"])
@pytest.mark.parametrize("name", GOOD)
def test_what_is_recommended_works(make, config, name):
    pipeline = make(text=False)
    pipeline.scheduler = scheduler_of(f"{name}Scheduler", **config)
    images = pipeline(num_inference_steps=4, reference_image=references(), output_type="pt", generator=seeded()).images
    assert torch.isfinite(images).all()


@pytest.mark.parametrize("place", ["generate", "alone", "edit", "modular"])
def test_what_cannot_put_a_picture_under_noise_is_refused_before_anything_is_computed(make, monkeypatch, place):
    kind = {"kind": MGInpaintPipeline} if place == "edit" else {}
    pipeline, given = make(**kind), {"num_inference_steps": 4, "reference_image": references(), "prompt": "a"}
    given |= {"image": picture(1, 16, 16), "mask_image": torch.ones(16, 16)} if kind else {}
    given |= {"composed_start": 0.5} if place in ("generate", "modular") else {}
    pipeline.scheduler = Noiseless.from_config(pipeline.scheduler.config)
    if place == "alone":  # where a composed start is on by itself
        pipeline.mg_adapter = None
    called = pipeline
    if place == "modular":
        called = MGBlocks().init_pipeline()
        called.update_components(**pipeline.components)
    for part in (pipeline.text_encoder, pipeline.mg_encoder, pipeline.unet, pipeline.vae):
        monkeypatch.setattr(part, "forward", None)
    said = "This edit" if place == "edit" else "`composed_start`"
    with pytest.raises(
        ValueError, match=f"{said} puts a picture under noise, which Noiseless cannot. Use for example"
    ):
        called(**given)
    monkeypatch.undo()
    if place != "edit":  # as the sentence says
        assert called(**{**given, "composed_start": 0}) is not None


class Noiseless(DDIMScheduler):
    add_noise = property()  # there is none


class Unset(DDIMScheduler):
    def set_timesteps(self, *given, **options):
        raise RuntimeError("not today\nnor tomorrow")


class Unstepping(DDIMScheduler):
    def step(self, *given, **options):
        raise KeyError


class Orderless(DDIMScheduler):
    order = property()  # there is none


OF_OTHER_CALLS = {
    "UnCLIPScheduler": "is not one for calls like this: it has no `order`",
    "DDPMWuerstchenScheduler": "is not one for calls like this: it has no `order`",
    "ScoreSdeVeScheduler": "is not one for calls like this: it has no `step`",
    "KarrasVeScheduler": "cannot take the steps of calls like this .TypeError: .*sample_hat",
    "RePaintScheduler": "cannot take the steps of calls like this .TypeError: .*original_image",
    "CogVideoXDPMScheduler": "cannot take the steps of calls like this .TypeError: .*timestep_back",
    "DDIMInverseScheduler": "goes from a picture to noise",
    "DPMSolverMultistepInverseScheduler": "goes from a picture to noise",
    "SCMScheduler": "cannot be set to 4 steps .ValueError: Intermediate timesteps .* Choose another number",
    Unset: "cannot be set to 4 steps .RuntimeError: not today.. Choose another number of them, or another scheduler",
    Unstepping: "cannot take the steps of calls like this .KeyError.",
    Orderless: "is not one for calls like this: it has no `order`",
}


@pytest.mark.parametrize("place", ["generate", "edit", "modular"])
@pytest.mark.parametrize("kind", OF_OTHER_CALLS, ids=lambda kind: kind if isinstance(kind, str) else kind.__name__)
def test_what_is_for_other_calls_is_refused_before_anything_is_computed(make, monkeypatch, kind, place):
    if place == "edit" and kind in ("SCMScheduler", "DDIMInverseScheduler"):
        pytest.skip("it cannot put a picture under noise, which is told first")
    pipeline = make(**({"kind": MGInpaintPipeline} if place == "edit" else {}))
    given = {"prompt": "a", "num_inference_steps": 4, "reference_image": references()}
    given |= {"image": picture(1, 16, 16), "mask_image": torch.ones(16, 16)} if place == "edit" else {}
    made = kind if isinstance(kind, type) else getattr(diffusers, kind)
    pipeline.scheduler = made.from_config(pipeline.scheduler.config)
    called = pipeline
    if place == "modular":
        called = MGBlocks().init_pipeline()
        called.update_components(**pipeline.components)
    for part in (pipeline.text_encoder, pipeline.mg_encoder, pipeline.unet, pipeline.vae):
        monkeypatch.setattr(part, "forward", None)
    with pytest.raises(ValueError, match=f"^{made.__name__} {OF_OTHER_CALLS[kind]}") as refused:
        called(**given)
    monkeypatch.undo()
    said = str(refused.value)
    assert "\n" not in said and "by `.from_config(pipe.scheduler.config)`." in said
    for name in re.findall(r"\w+Scheduler\b", said.split("Use for example")[1]):  # as it says
        better = getattr(diffusers, name).from_config(pipeline.scheduler.config)
        called.update_components(scheduler=better) if place == "modular" else setattr(pipeline, "scheduler", better)
        assert called(**given) is not None


def test_the_page_names_those_for_other_calls(repository):
    (said,) = re.findall(
        r"refused so with every UNet \(([^;]*);", (repository / "docs" / "compatibility.md").read_text()
    )
    assert set(re.findall(r"`(\w+)`", said)) == {kind for kind in OF_OTHER_CALLS if isinstance(kind, str)}


def test_wrong_timesteps_stay_in_the_words_of_diffusers(make):
    pipeline = make(text=False)
    with pytest.raises(ValueError, match="does not support custom sigmas schedules"):
        pipeline(sigmas=[1.0, 0.0])
    pipeline.scheduler = diffusers.PNDMScheduler.from_config(pipeline.scheduler.config)
    with pytest.raises(
        ValueError, match="PNDMScheduler cannot be set to 3 steps .ValueError: .*Choose another number"
    ):
        pipeline(num_inference_steps=3)
    assert torch.isfinite(pipeline(num_inference_steps=4, output_type="pt", generator=seeded()).images).all()


def test_sigmas_that_leave_no_step_are_refused_and_the_remedy_works(make, monkeypatch):
    pipeline = make(text=False)
    pipeline.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    with pytest.raises(ValueError, match=r"`sigmas` = \[1.0\] leave no step to take: EulerDiscrete.*Append 0.0"):
        pipeline(sigmas=[1.0])
    assert torch.isfinite(pipeline(sigmas=[1.0, 0.0], output_type="pt", generator=seeded()).images).all()
    pipeline.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()  # appends the end itself
    assert torch.isfinite(pipeline(sigmas=[1.0], output_type="pt", generator=seeded()).images).all()


def test_the_trial_changes_neither_the_scheduler_nor_what_is_drawn():
    scheduler = scheduler_of("DDPMScheduler", **SAMPLE)
    scheduler.set_timesteps(4)
    before, state = {key: repr(value) for key, value in vars(scheduler).items()}, torch.get_rng_state()
    check_scheduler(scheduler, scheduler.timesteps)
    assert {key: repr(value) for key, value in vars(scheduler).items()} == before
    assert torch.equal(torch.get_rng_state(), state)


NO_WAY_DOWN = [("timesteps", one) for one in (["a"], 5, [1, 500, 999], [-5], [5000, 1], [500, 500])]
NO_WAY_DOWN += [("sigmas", one) for one in ([0.0, 14.0], [-1.0, 0.0], [1.0, float("nan")], "14")]


@pytest.mark.parametrize("kind", [diffusers.EulerDiscreteScheduler, DDPMScheduler], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(("name", "wrong"), NO_WAY_DOWN, ids=[str(number) for number in range(len(NO_WAY_DOWN))])
def test_what_is_no_way_down_from_noise_is_refused(kind, name, wrong):
    with pytest.raises(ValueError, match=f"`{name}` must be finite numbers in a falling list"):
        set_steps(kind(), 4, **{name: wrong})


@pytest.mark.parametrize("count", [100, 1000])
def test_the_example_of_a_way_down_works_and_arrays_are_one(count):
    scheduler = diffusers.EulerDiscreteScheduler(num_train_timesteps=count)
    with pytest.raises(ValueError, match="pass for example") as told:
        set_steps(scheduler, 4, timesteps=[5000, 1])
    example = json.loads(re.search(r"for example (\[.*\])", str(told.value)).group(1))
    for form in (list, tuple, np.array, torch.tensor):
        assert len(set_steps(scheduler, 4, timesteps=form(example))[0]) == 4
        assert len(set_steps(scheduler, 4, sigmas=form([14.6, 2.9, 0.7, 0.0]))[0]) == 3


@pytest.mark.parametrize(
    ("kind", "form"), [(diffusers.UniPCMultistepScheduler, np.array), (diffusers.EDMEulerScheduler, torch.tensor)]
)
def test_sigmas_reach_a_scheduler_in_the_form_they_were_given_in(kind, form):
    options = {"prediction_type": "flow_prediction", "use_flow_sigmas": True} if "UniPC" in kind.__name__ else {}
    found = kind(**options)
    try:
        set_steps(found, 4, sigmas=form([1.0, 0.7, 0.4, 0.1]))
    except ValueError as error:  # what it makes of pictures is another matter
        assert "cannot be set" not in str(error)
    assert len(found.timesteps) == 4


def test_a_picture_is_not_made_by_going_to_noise(make):
    pipeline = make(text=False)
    for name in ("DDIMInverseScheduler", "DPMSolverMultistepInverseScheduler"):
        pipeline.scheduler = getattr(diffusers, name).from_config(pipeline.scheduler.config)
        for steps in (1, 4):  # a single one does not rise
            with pytest.raises(ValueError, match=f"{name} goes from a picture to noise.*Use for example DDIM"):
                pipeline(num_inference_steps=steps)


@pytest.mark.parametrize("name", ["KarrasVeScheduler", "HeunDiscreteScheduler"])
def test_an_edit_of_a_scheduler_of_two_evaluations_never_starts_without_a_step(make, name):
    pipeline = make(kind=MGInpaintPipeline)
    given = {"image": picture(1, 16, 16), "mask_image": torch.ones(16, 16), "strength": 0.5, "num_inference_steps": 4}
    given |= {"timesteps": [900, 600, 300, 100]} if name.startswith("Heun") else {}
    pipeline.scheduler = getattr(diffusers, name).from_config(pipeline.scheduler.config)
    said = "cannot take the steps" if name.startswith("Karras") else "no step is left. Raise it"
    with pytest.raises(ValueError, match=said):
        pipeline(**given)
    if name.startswith("Heun"):  # as it says
        assert pipeline(**{**given, "strength": 1.0}) is not None


@pytest.mark.parametrize(("wrong", "said"), [(DDIMScheduler, "the class DDIMScheduler"), (None, "None")])
def test_what_is_no_scheduler_is_refused(make, wrong, said):
    pipeline = make(text=False)
    pipeline.scheduler = wrong
    with pytest.raises(ValueError, match=f"`scheduler` must be a scheduler of diffusers, got .?{said}"):
        pipeline(num_inference_steps=1)
