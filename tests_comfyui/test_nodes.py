"""Each node but the model patch, executed by ComfyUI: the same as the library's function on the same tensors."""

import numpy as np
import pytest
import torch
from running import GraphError

from mg_diffusion import compose
from mg_diffusion.comfyui import models
from mg_diffusion.comfyui.seeing import picture_of
from mg_diffusion.edits import denoise, enlarge, recolor
from mg_diffusion.palettes import extract_palette


def image_of(seed: int, height: int = 48, width: int = 64) -> torch.Tensor:
    """Smooth noise of two scales, (1, height, width, 3), as Load Image gives it: steps of 1/255."""
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.rand(1, 3, *cells, generator=generator) for cells in ((3, 4), (height // 2, width // 2))]
    mixed = sum(torch.nn.functional.interpolate(one, (height, width), mode="bilinear") for one in parts) / 2
    return (255 * mixed.movedim(1, 3)).round() / 255


def bits(image: torch.Tensor) -> np.ndarray:
    return (65535 * image[0].double()).round().numpy().astype(np.uint16)


def chw(image: torch.Tensor) -> torch.Tensor:
    return image[0].permute(2, 0, 1)


COLOR, TEXTURE, SHAPE = image_of(1), image_of(2), image_of(3)
MASK = torch.zeros(1, 48, 64)
MASK[:, 12:36, 16:48] = 1
WIDGETS = {
    "MGCompose": {
        "width": 96, "height": 64, "color_strength": 1.0, "texture_strength": 1.0, "shape_strength": 1.0,
        "texture_scale": 1.0, "assignment": "light", "seed": 7, "batch_size": 1,
    },
    "MGRecolor": {
        "palette": "", "strength": 1.0, "assignment": "light", "select": "", "tolerance": 20.0, "feather": 0, "seed": 0,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def networks():
    return models.embedded()


def test_compose(comfy, networks):
    made = comfy.node("MGCompose", **WIDGETS["MGCompose"], color=COLOR, texture=TEXTURE, shape=SHAPE)
    references = {"color": chw(COLOR), "texture": chw(TEXTURE), "shape": chw(SHAPE)}
    generator = torch.Generator().manual_seed(7)
    expected = compose(references, 64, 96, generator=generator, output_type="pt", encoder=networks.mg_encoder)
    assert torch.equal(made, expected.permute(0, 2, 3, 1))


def test_a_chain_of_references_with_regions(comfy):
    left = torch.zeros(1, 8, 8)
    left[..., :4] = 1
    options = {"granularity": "color", "weight": 1.0, "scale": 1.0}
    first = comfy.node("MGReference", **options, palette="#e63946:2, #f4a261", region=left)
    both = comfy.node("MGReference", **options, image=COLOR, region=1 - left, references=first)
    made = comfy.node("MGCompose", **WIDGETS["MGCompose"], shape=SHAPE, references=both)
    references = {
        "color": [
            {"image": ["#e63946:2", "#f4a261"], "region": (0, 0, 0.5, 1)},
            {"image": chw(COLOR), "region": (0.5, 0, 1, 1)},
        ],
        "shape": chw(SHAPE),
    }
    expected = compose(references, 64, 96, generator=torch.Generator().manual_seed(7), output_type="pt")
    assert torch.equal(made, expected.permute(0, 2, 3, 1))


def test_palettes(comfy, networks):
    palette = comfy.node("MGExtractPalette", image=COLOR, colors=4)
    assert palette == ", ".join(extract_palette(networks.mg_encoder, chw(COLOR), 4))
    changed = comfy.node("MGEditPalette", palette=palette, changes="1=#1d6fd1:40")
    assert changed == ", ".join(["#1d6fd1:40", *palette.split(", ")[1:]])
    options = {**WIDGETS["MGRecolor"], "palette": changed}
    (expected,) = recolor(networks, bits(SHAPE), changed.split(", "))
    assert np.array_equal(bits(comfy.node("MGRecolor", **options, image=SHAPE)), expected)


@pytest.mark.parametrize("view", ["color", "texture", "texture tiles", "shape", "shape edges"])
def test_views(comfy, networks, view):
    made = comfy.node("MGViews", image=COLOR, view=view)
    loaded, name = networks.mg_encoder.load(chw(COLOR)), view.partition(" ")[0]
    views = networks.mg_encoder.views(loaded["rgb"], loaded["mask"])[name]
    expected = torch.nn.functional.interpolate(picture_of(view, views), (48, 64), mode="nearest")
    assert torch.equal(made, expected.movedim(1, 3))


def test_exact_paste(comfy):
    made = comfy.node("MGExactPaste", image=COLOR, edited=SHAPE, mask=MASK, feather=0)
    assert torch.equal(made[MASK == 0], COLOR[MASK == 0]) and torch.equal(made[MASK == 1], SHAPE[MASK == 1])


def test_filters(comfy, networks):
    recolored = comfy.node("MGRecolor", **WIDGETS["MGRecolor"], image=SHAPE, color=COLOR, mask=MASK)
    assert np.array_equal(bits(recolored), recolor(networks, bits(SHAPE), [chw(COLOR)], MASK[0].numpy())[0])
    assert torch.equal(recolored[MASK == 0], SHAPE[MASK == 0])
    cleaned = comfy.node("MGDenoise", image=SHAPE, strength=1.0, noise_level=-1.0, feather=0)
    assert np.array_equal(bits(cleaned), denoise(networks, bits(SHAPE))[0])
    larger = comfy.node("MGEnlarge", image=SHAPE, factor=4, strength=1.0)
    assert np.array_equal(bits(larger), enlarge(networks, bits(SHAPE), 4)[0]) and larger.shape == (1, 192, 256, 3)


def test_a_model_of_ones_own(comfy, networks):
    own = comfy.node("MGModel", folder=str(networks.folder))
    own.mg_encoder.requires_grad_(False)
    assert torch.equal(
        comfy.node("MGViews", image=COLOR, view="shape", mg_model=own),
        comfy.node("MGViews", image=COLOR, view="shape"),
    )


def test_what_is_wrong_is_said_where_comfyui_shows_it(comfy):
    with pytest.raises(GraphError, match="nothing to compose: connect a color"):
        comfy.node("MGCompose", **WIDGETS["MGCompose"])
    with pytest.raises(GraphError, match="64 x 48.*Resize the mask"):
        comfy.node("MGDenoise", image=COLOR, mask=torch.ones(1, 64, 64), strength=1.0, noise_level=-1.0, feather=0)


def test_the_stop_button_ends_a_filter():
    from comfy import model_management

    from mg_diffusion.comfyui.filters import MGDenoise

    model_management.interrupt_current_processing(True)
    with pytest.raises(model_management.InterruptProcessingException):
        MGDenoise().denoise(COLOR)
    assert not model_management.processing_interrupted()


def test_one_line_in_a_file_is_enough(comfy):
    import asyncio

    import nodes

    path = comfy.root / "custom_nodes" / "mg_diffusion_nodes.py"
    names = "NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS"
    path.write_text(f"from mg_diffusion.comfyui import {names}\n", encoding="utf-8")
    before = dict(nodes.NODE_CLASS_MAPPINGS)
    try:
        assert asyncio.run(nodes.load_custom_node(str(path)))
        assert nodes.NODE_CLASS_MAPPINGS["MGCompose"].__module__ == "mg_diffusion.comfyui.composing"
    finally:
        nodes.NODE_CLASS_MAPPINGS.update(before)
