"""A texture reference that is not one texture is named in a warning; what is one, or was not asked for, is not."""

import subprocess
import sys
import warnings

import numpy as np
import PIL.Image
import pytest
import torch

from demo.references import photograph, reference
from mg_diffusion import MGEncoder


SIZE = (64, 64)


@pytest.fixture(scope="module")
def encoder():
    return MGEncoder()  # the filters are fixed, no weight takes part


def told(encoder, reference, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        encoder.encode({"texture": reference}, SIZE, **options)
    return [str(one.message) for one in caught if "looks like objects" in str(one.message)]


@pytest.mark.parametrize("name", ["brick", "grass", "gravel", "fur", "weave", "stripes", "bricks", "dots"])
def test_textures_pass(encoder, name):
    assert told(encoder, reference(name)) == []


@pytest.mark.parametrize("name", ["cat", "coffee", "astronaut", "rocket", "star"])
def test_objects_are_named(encoder, name, tmp_path):
    path = tmp_path / f"{name}.png"
    reference(name).save(path)
    (message,) = told(encoder, path)
    assert f"The texture reference {str(path)!r} looks like objects" in message and "Crop it to a part" in message


def test_of_several_the_one_is_named_by_its_place(encoder, tmp_path):
    (message,) = told(encoder, [reference("weave"), {"image": reference("coffee"), "weight": 2}])
    assert "The texture reference 2 of 2 looks" in message


def test_the_remedies_work(encoder):
    cat = photograph("cat")
    assert told(encoder, cat)[0].startswith("The texture reference looks like objects")
    assert told(encoder, cat.crop((111, 0, 205, 94))) == []
    mask = PIL.Image.new("L", cat.size)
    mask.paste(255, (111, 0, 205, 94))
    assert told(encoder, {"image": cat, "mask": mask}) == []


def test_a_card_is_judged_like_its_picture(encoder, tmp_path):
    for name, expected in (("weave", 0), ("coffee", 1)):
        encoder.save_card(tmp_path / f"{name}.safetensors", "texture", reference(name))
        assert len(told(encoder, tmp_path / f"{name}.safetensors")) == expected


def test_a_picture_that_is_varied_is_not_judged(encoder):
    """It lends all three: it is no texture for something else, so there is nothing to crop."""
    coffee = reference("coffee")
    with warnings.catch_warnings(action="error"):
        encoder.encode(dict.fromkeys(("color", "texture", "shape"), coffee), SIZE)
    with pytest.warns(UserWarning, match="looks like objects"):
        encoder.encode({"texture": coffee, "shape": reference("cat")}, SIZE)


def test_a_variation_is_made_without_a_word_and_warnings_are_lines(tmp_path):
    reference("coffee").resize((64, 64)).save(tmp_path / "coffee.png")
    command = [sys.executable, "-m", "mg_diffusion.cli"]
    few = ["--steps", "1", "--size", "64"]

    def told(*flags):
        made = subprocess.run(
            [*command, *flags, *few, "-o", "out.png", "--force"], cwd=tmp_path, capture_output=True, text=True
        )
        assert made.returncode == 0, made.stderr
        return made.stderr

    assert "arning" not in told("variation", "coffee.png")
    lines = told("generate", "--texture", "coffee.png").splitlines()
    (warned,) = [line for line in lines if "arning" in line]
    assert warned.startswith("warning: The texture reference 'coffee.png' looks like objects") and warned.endswith(".")
    assert not [line for line in lines if "_encode_row" in line or ".py" in line]


def test_other_granularities_and_the_surroundings_of_an_edit_are_not_judged(encoder):
    coffee = reference("coffee")
    image = torch.from_numpy(np.array(coffee.resize((64, 64)))).permute(2, 0, 1)[None] / 255
    hole = torch.zeros(1, 1, 64, 64)
    hole[..., 20:40, 20:40] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        encoder.encode({"color": coffee, "shape": coffee}, SIZE)
        encoder.encode_context(image, hole, ("color", "texture", "shape"), SIZE)
