"""The showcase picture and its parts, with a very small untrained model."""

import numpy as np
import PIL.Image
import pytest
import torch

from demo import layout, references, showcase
from mg_diffusion import MGInpaintPipeline, MGPipeline
from mg_diffusion.recipe import read_recipe


@pytest.fixture(scope="module")
def pipe(model):
    pipe = MGPipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def flat(color: str, width: int, height: int) -> PIL.Image.Image:
    return PIL.Image.new("RGB", (width, height), color)


def test_showcase_makes_one_picture_and_reports(model, tmp_path, capsys):
    output = tmp_path / "new" / "showcase.png"
    assert showcase.main(["--model", str(model), "--steps", "1", "--output", str(output)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "pixels outside the mask that differ: 0"
    assert "peak memory" in printed[1] and printed[-1] == str(output)
    with PIL.Image.open(output) as image:
        assert 1300 <= image.width <= 1800
    recipe = read_recipe(output)
    assert recipe["model"] == "tiny-bazaar" and recipe["num_inference_steps"] == 1 and len(recipe["triples"]) >= 4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--output", "{tmp}/a.jpg"], "must be a .png"),
        (["--output", "{tmp}/a.png", "--model", "{tmp}"], "model_index"),
    ],
)
def test_errors_are_told_in_a_line(tmp_path, capsys, flags, message):
    assert showcase.main([flag.format(tmp=tmp_path) for flag in flags]) == 2
    printed = capsys.readouterr().err
    assert message in printed and "Traceback" not in printed
    assert list(tmp_path.iterdir()) == []


def test_every_picture_is_made_from_its_own_references(pipe):
    triples = showcase.TRIPLES[:3]
    made = showcase.generate(pipe, triples, steps=1)
    for triple, image in zip(triples, made, strict=True):
        named = {name: references.reference(triple[name]) for name in showcase.GRANULARITIES}
        generator = torch.Generator().manual_seed(showcase.SEED)
        alone = pipe(reference_image=named, num_inference_steps=1, generator=generator).images[0]
        assert np.abs(np.asarray(image, int) - np.asarray(alone, int)).max() <= 2


@pytest.mark.parametrize("name", showcase.GRANULARITIES)
def test_a_sweep_changes_one_granularity(name):
    row = showcase.sweep_triples(name)
    assert len({triple[name] for triple in row}) == len(row) >= 4
    for other in set(showcase.GRANULARITIES) - {name}:
        assert len({triple[other] for triple in row}) == 1


def test_edits_stay_inside_the_mask_and_differences_are_counted(pipe):
    photo, mask = references.photograph("coffee"), showcase.edit_mask()
    edited = showcase.edit(MGInpaintPipeline(**pipe.components), photo, mask, showcase.EDITS, steps=1)
    assert len(edited) == len(showcase.EDITS)
    assert showcase.count_outside(photo, mask, edited) == 0
    inside = np.asarray(mask) > 0
    assert all((np.asarray(one) != np.asarray(photo))[inside].any() for one in edited)
    edited[0].putpixel((0, 0), (1, 2, 3))
    assert showcase.count_outside(photo, mask, edited) == 1


NAMES = sorted({name for triple in [*showcase.TRIPLES, *showcase.EDITS] for name in triple.values()})
NAMES += sorted({name for fixed, changing in showcase.SWEEPS.values() for name in [*fixed.values(), *changing]})


def test_every_reference_can_be_read_and_shown(pipe):
    for name in set(NAMES):
        assert references.picture(name).size == (references.SIDE, references.SIDE)
        granularity = "color" if name in references.PALETTES else "shape"
        pipe.encode_reference({granularity: references.reference(name)})


@pytest.mark.parametrize("name", list(references.SHAPE_COLORS))
def test_silhouettes_are_inside_their_pictures(name):
    pixels = np.asarray(references.silhouette(name), int)
    figure = np.abs(pixels - pixels[0, 0]).sum(2) > 60
    assert 0.15 < figure.mean() < 0.6
    assert not (figure[[0, -1]].any() or figure[:, [0, -1]].any())


def test_a_swatch_shows_colors_by_weight():
    pixels = np.asarray(references.swatch(["#ff0000:3", "#0000ff"]))
    assert abs((pixels[..., 0] == 255).mean() - 0.75) < 0.01
    assert abs((pixels[..., 2] == 255).mean() - 0.25) < 0.01


def test_pictures_are_put_together():
    red, blue = flat("red", 10, 20), flat("blue", 6, 8)
    row = layout.beside([red, blue], gap=4, align=1)
    assert row.size == (20, 20)
    assert row.getpixel((9, 0)) == (255, 0, 0) and row.getpixel((14, 12)) == (0, 0, 255)
    assert row.getpixel((14, 11)) == row.getpixel((12, 19)) == (255, 255, 255)
    column = layout.below([red, blue], gap=4, align=0.5)
    assert column.size == (10, 32)
    assert column.getpixel((2, 24)) == (0, 0, 255) and column.getpixel((1, 24)) == (255, 255, 255)
    assert layout.framed(red, 5).size == (20, 30)
    assert layout.label("words", 16, width=90).width == 90


def test_the_mask_is_drawn_only_where_it_is():
    image, mask = flat("#336699", 32, 32), PIL.Image.new("L", (32, 32))
    mask.paste(255, (8, 8, 24, 24))
    drawn = np.asarray(layout.with_mask(layout.scaled(image, 64), mask))
    changed = (drawn != np.asarray(layout.scaled(image, 64))).any(2)
    assert changed[16:48, 16:48].all() and changed.sum() == 32 * 32
