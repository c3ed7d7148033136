"""What a process has set and forgotten, torch's default type or autocast, changes nothing that references are read by."""

import warnings

import numpy as np
import pytest
import torch

from mg_diffusion import edits
from mg_diffusion.octaves import build_detail_unet, build_scheduler, paint_octave
from mg_diffusion.pipelines import MGInpaintPipeline, MGPipeline

from .tiny import picture, seeded, tiny_components


KINDS = [torch.float64, torch.float16, torch.bfloat16]
REFERENCES = {"color": picture(1), "texture": picture(2), "shape": picture(3)}
CALLS = {
    "nothing": {},
    "one color": {"reference_image": {"color": ["#c11210"], "shape": picture(3)}},
    "all": {"reference_image": REFERENCES, "granularity_schedule": {"color": (0.0, 0.6)}},
    "regions": {
        "reference_image": {
            "color": [
                {"image": picture(1), "region": (0, 0, 0.33, 1)},
                {"image": ["#112233:2", "#ffeedd"], "region": (0.33, 0, 1, 1), "weight": 0.3},
            ],
            "texture": [picture(2), picture(4)],
        }
    },
    "guidance": {
        "prompt": "a",
        "guidance_scale": 3.0,
        "reference_image": {"shape": picture(3)},
        "granularity_guidance": {"shape": 1.5},
    },
    "feature guidance": {"reference_image": REFERENCES, "feature_guidance_scale": 1.0},
}
EDITS = {
    "surroundings": {"context_scale": 0.5, "strength": 0.7},
    "crop": {"reference_image": {"color": ["#c11210", "#ffffff"]}, "mask_feather": 2, "padding_mask_crop": 2},
}


@pytest.fixture
def default_type():
    """Sets torch's default type, and sets it back."""
    yield torch.set_default_dtype
    torch.set_default_dtype(torch.float32)


def painted(make, name):
    """A call on fresh components: nothing is remembered, no decoder fitted."""
    if name in CALLS:
        pipeline, given = make(), CALLS[name]
    else:
        pipeline, given = make(kind=MGInpaintPipeline), EDITS[name]
        given = {**given, "image": picture(5, 16, 16), "mask_image": np.tri(16, dtype=bool)}
    return pipeline(**given, num_inference_steps=2, output_type="np", generator=seeded()).images


@pytest.mark.parametrize("name", [*CALLS, *EDITS])
def test_a_default_type_changes_nothing(make, default_type, name):
    parts = []

    def fresh(**options):
        torch.set_default_dtype(torch.float32)
        parts.append(make(**options))
        torch.set_default_dtype(kind)
        return parts[-1]

    kind = torch.float32
    expected = painted(fresh, name)
    for kind in KINDS:
        default_type(kind)
        # Least squares, by which a decoder is fitted, come out a little otherwise from one call to the next.
        atol = 1e-4 if name == "feature guidance" else 0
        np.testing.assert_allclose(painted(fresh, name), expected, rtol=0, atol=atol, err_msg=str(kind))


@pytest.mark.parametrize("name", [*CALLS, *EDITS])
def test_autocast_leaves_references_as_they_are(make, name):
    expected = painted(make, name)
    with torch.autocast("cpu", torch.bfloat16):
        assert np.isfinite(found := painted(make, name)).all() and found.shape == expected.shape
        encoder = tiny_components()["mg_encoder"]
        cast = encoder.encode(REFERENCES, (16, 16))
    for granularity, (parts,) in tiny_components()["mg_encoder"].encode(REFERENCES, (16, 16)).items():
        for key, value in parts.items():
            assert torch.equal(cast[granularity][0][key], value), (granularity, key)


def test_a_call_under_autocast_leaves_nothing_behind(make):
    """Such as the decoder that feature guidance fits once and keeps."""
    untouched, other = make(), make()
    with torch.autocast("cpu", torch.bfloat16):
        painted(lambda: other, "feature guidance")
    found, expected = (painted(lambda one=one: one, "feature guidance") for one in (other, untouched))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("kind", [*KINDS, "autocast"])
def test_named_edits_are_the_same(make, default_type, kind):
    photo, mask = picture(6, 48, 40), np.zeros((48, 40), bool)
    mask[20:30, 10:22] = True

    def edited():
        torch.set_default_dtype(torch.float32)
        pipeline = make(text=False)
        if kind == "autocast":
            with torch.autocast("cpu", torch.bfloat16):
                return all_edits(pipeline)
        torch.set_default_dtype(kind)
        return all_edits(pipeline)

    def all_edits(pipeline):
        yield edits.recolor(pipeline, photo, color=["#c11210", "#f0e0d0"])
        yield edits.recolor(pipeline, photo, color=picture(1), mask_image=mask, select="#808080", tolerance=90.0)
        yield edits.retexture(pipeline, photo, texture=picture(2))
        yield edits.remove(pipeline, photo, mask, generator=seeded())

    found = [np.asarray(one) for (one,) in edited()]
    torch.set_default_dtype(torch.float32)
    expected = [np.asarray(one) for (one,) in all_edits(make(text=False))]
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    "names",
    [["unet"], ["vae"], ["mg_encoder"], ["mg_adapter"], ["unet", "mg_encoder"], ["unet", "vae", "text_encoder"]],
    ids="+".join,
)
def test_components_of_several_types_work_together(make, names):
    for name in ("all", "feature guidance"):
        pipeline = make()
        for one in names:
            getattr(pipeline, one).to(torch.bfloat16)
        assert np.isfinite(painted(lambda ready=pipeline: ready, name)).all(), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_is_loaded_under_a_default_type_works(model, default_type, kind):
    reference = {"color": ["#c11210", "#ffffff"], "texture": picture(2)}
    expected = MGPipeline.from_pretrained(model)
    default_type(kind)
    for given in ({}, {"dtype": torch.float32}):
        pipeline = MGPipeline.from_pretrained(model, **given)
        pipeline.set_progress_bar_config(disable=True)
        images = pipeline(reference_image=reference, num_inference_steps=1, output_type="np").images
        assert np.isfinite(images).all()
    for branch in ("color", "texture"):  # what is drawn or calculated when a model is built
        buffers = dict(expected.mg_encoder.branches[branch].named_buffers())
        for name, value in pipeline.mg_encoder.branches[branch].named_buffers():
            torch.testing.assert_close(value, buffers[name], rtol=0, atol=0)


def test_octaves_are_painted_in_double_precision():
    unet = build_detail_unet((16, 32), sample_size=8).eval()
    conditions = torch.rand(1, unet.config.in_channels - 12, 4, 4, generator=seeded())
    given = (build_scheduler(), conditions, 0.1, 2)
    expected = paint_octave(unet, *given, seeded())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = paint_octave(unet.double(), given[0], conditions.double(), 0.1, 2, seeded())
    assert found.dtype == torch.float64 and unet.dtype == torch.float64
    assert found.shape == expected.shape
