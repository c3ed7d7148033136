"""A detail network in the pipelines: sizes, the same canvas and sketch at every size, strength 0, what is refused."""

from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch

from mg_diffusion import MGPipeline
from mg_diffusion.cli.sizes import check_generated_size
from mg_diffusion.octaves import build_detail_unet
from mg_diffusion.sizes import check_painted_size, nearest_painted_size, octaves_to

from .tiny import SIZE, tiny_components


LARGE = 4 * SIZE


def picture(seed, size=(48, 48)):
    return PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8))


@pytest.fixture(scope="module")
def mg_detail():
    torch.manual_seed(0)
    unet = build_detail_unet((16, 32), sample_size=LARGE // 2).eval()
    torch.nn.init.normal_(unet.conv_out.weight, std=0.05)
    return unet


@pytest.fixture(scope="module")
def pipe(tmp_path_factory, mg_detail):
    pipe = MGPipeline(**tiny_components(tmp_path_factory.mktemp("tokenizer"), vae="haar"), mg_detail=mg_detail)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def small(pipe):
    """The same without the detail network."""
    return MGPipeline.from_pipe(pipe, mg_detail=None)


REFERENCES = {"color": picture(1), "texture": picture(2), "shape": picture(3)}


def run(pipe, references=REFERENCES, seed=0, **options):
    options = {"num_inference_steps": 2, "num_detail_steps": 2, "output_type": "pt", **options}
    return pipe(reference_image=references, generator=torch.Generator().manual_seed(seed), **options).images


@pytest.mark.parametrize(
    "asked, found",
    [
        ({}, (LARGE, LARGE)),
        ({"height": SIZE, "width": SIZE}, (SIZE, SIZE)),
        ({"height": 2 * SIZE}, (2 * SIZE, 2 * SIZE)),  # the shape reference is a square
        ({"height": 6 * SIZE, "width": 4 * SIZE}, (6 * SIZE, 4 * SIZE)),
    ],
)
def test_sizes(pipe, asked, found):
    assert tuple(run(pipe, **asked).shape[2:]) == found


def test_the_aspect_of_the_shape_reference_is_kept(pipe):
    wide = {**REFERENCES, "shape": picture(3, (40, 80))}
    height, width = run(pipe, wide).shape[2:]
    assert width > 1.8 * height and 0.7 < height * width / LARGE**2 < 1.3
    assert tuple(run(pipe, wide, height=LARGE, width=LARGE).shape[2:]) == (LARGE, LARGE)
    assert tuple(run(pipe, {"color": wide["shape"]}).shape[2:]) == (LARGE, LARGE)


def shown(kind, folder):
    """A picture of 80 x 40 as people have it: of another mode, turned, in a file, an array, with a mask, in a list."""
    image = PIL.Image.fromarray(np.random.default_rng(3).integers(0, 255, (40, 80, 3), dtype=np.uint8))
    if kind in ("RGBA", "LA"):
        alpha = PIL.Image.new("L", image.size, 255)
        alpha.paste(0, (0, 0, 20, 40))
        image = image.convert(kind)
        image.putalpha(alpha)
        return image
    if kind == "P with transparency":
        image = image.convert("P")
        image.info["transparency"] = 0
        return image
    if kind == "turned file":
        exif = PIL.Image.Exif()
        exif[0x0112] = 6
        image.transpose(PIL.Image.Transpose.ROTATE_90).save(folder / "turned.png", exif=exif)
        return folder / "turned.png"
    forms = {
        "I;16": PIL.Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257),
        "array": np.asarray(image),
        "gray array": np.asarray(image.convert("L")),
        "with a mask": {"image": image.convert("RGBA"), "mask": np.ones((40, 80), bool)},
        "list behind colors of a region": [{"image": image, "region": (0, 0, 0.5, 1)}, {"image": image, "weight": 2}],
    }
    return forms[kind]


FORMS = ("RGBA", "LA", "P with transparency", "turned file", "I;16", "array", "gray array", "with a mask")


@pytest.mark.parametrize("kind", [*FORMS, "list behind colors of a region"])
def test_the_aspect_is_that_of_a_shape_reference_of_any_form(pipe, tmp_path, kind):
    wide = shown(kind, tmp_path)
    assert pipe.output_size(None, LARGE, {"shape": wide}) == (LARGE // 2, LARGE)
    height, width = pipe.output_size(None, None, {"shape": wide})
    assert width > 1.8 * height


def test_a_number_is_a_square_of_that_area_in_an_aspect(pipe, small):
    wide = {"shape": picture(3, (40, 80))}
    for each in (pipe, small):
        height, width = each.output_size(None, None, wide, LARGE)
        assert width > 1.8 * height and 0.7 < height * width / LARGE**2 < 1.3
        assert each.output_size(None, None, None, LARGE) == (LARGE, LARGE)
        assert each.output_size(None, None, wide, LARGE, 1.0) == (LARGE, LARGE)


def test_a_side_alone_keeps_the_aspect_of_the_shape_reference(pipe, small):
    wide = {**REFERENCES, "shape": picture(3, (40, 80))}
    for each in (pipe, small):
        assert tuple(run(each, wide, width=2 * LARGE).shape[2:]) == (LARGE, 2 * LARGE)
        assert tuple(run(each, wide, height=SIZE).shape[2:]) == (SIZE, 2 * SIZE)
    assert tuple(run(pipe, {"color": wide["shape"]}, width=2 * LARGE).shape[2:]) == (LARGE, 2 * LARGE)
    features = pipe.encode_reference(wide, width=2 * LARGE)
    kept = run(pipe, None, reference_embeds=features, height=LARGE, width=2 * LARGE)
    assert torch.equal(kept, run(pipe, wide, width=2 * LARGE))


@pytest.mark.parametrize("side", [0, -16])
def test_a_side_that_cannot_be_is_refused_alone_too(pipe, small, side):
    for each in (pipe, small):
        with pytest.raises(ValueError, match="must be positive multiples of"):
            run(each, width=side)


@pytest.mark.parametrize("size", [(10**6, LARGE), (LARGE, 10**6), (10**6, None), (4, 10**6 - 1)])
def test_sizes_beyond_all_octaves_are_refused(pipe, size):
    with pytest.raises(ValueError, match="`height` "):
        run(pipe, height=size[0], width=size[1])


@pytest.mark.parametrize("size", [(LARGE + 1, LARGE), (LARGE + 4, LARGE), (0, LARGE), (-16, LARGE)])
def test_sizes_that_cannot_be_are_refused_with_one_that_can(pipe, size):
    with pytest.raises(
        ValueError, match=r"must be positive multiples of \d+ at about this size.*Near by are"
    ) as refused:
        run(pipe, height=size[0], width=size[1])
    near = [int(one) for one in str(refused.value).rstrip(".").split("Near by are ")[1].split(" and ")]
    assert tuple(run(pipe, height=near[0], width=near[1]).shape[2:]) == tuple(near)


def refused(call, *args):
    try:
        call(*args)
    except ValueError as error:
        return str(error)
    return None


def test_the_command_line_refuses_the_sizes_that_the_pipeline_refuses(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    for height, width in [
        (8, 8),
        (9, 8),
        (LARGE, LARGE + 8),
        (LARGE, 2 * LARGE),
        (LARGE, LARGE + 4),
        (2048, 2064),
        (4096, 64),
    ]:
        options = SimpleNamespace(size=None, model=str(tmp_path), height=height, width=width, reference_image=None)
        assert refused(check_generated_size, options) == refused(pipe.sizes, options), (height, width)


def test_a_size_beyond_memory_is_refused(pipe):
    with pytest.raises(ValueError, match="at most 4,194,304 pixels.*Make a smaller picture"):
        run(pipe, height=4096, width=4096)


@pytest.mark.parametrize("steps", [0, -1, 2.5, "6", None, True, 5000])
def test_steps_that_cannot_be_are_refused_before_anything_is_painted(pipe, monkeypatch, steps):
    monkeypatch.setattr(pipe.unet, "forward", None)
    with pytest.raises(ValueError, match="`num_detail_steps` must be an integer from 1 to 1000, got"):
        run(pipe, num_detail_steps=steps)


def test_a_size_that_takes_minutes_is_told_before_it_is_painted(pipe, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipe.mg_encoder, "encode", stop)
    with (
        pytest.warns(UserWarning, match="2048 x 1536 may take a minute or more on a CPU"),
        pytest.raises(KeyboardInterrupt),
    ):
        run(pipe, height=1536, width=2048)


def test_at_the_size_of_the_unet_nothing_changes(pipe, small):
    size = {"height": SIZE, "width": SIZE}
    assert torch.equal(run(pipe, **size), run(small, **size))


RULES = [((64, 64), 2, 4), ((64, 64), 8, 8), ((64, 96), 8, 4)]  # (height, width) of the UNet, pixels a cell, halvings


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_side_alone_and_sizes_that_are_named_work_at_the_borders_of_octaves(rule):
    """In every aspect; rounding the other side leads over a border of some."""
    crossed = 0
    for height in range(rule[1], 700, rule[1]):
        for aspect in np.arange(0.25, 4, 0.0625):
            wanted = (height, height * aspect)
            unit = octaves_to(*wanted, *rule)[1]
            found = nearest_painted_size(wanted, *rule, given=(height, None))
            if height % unit == 0 or found is not None:
                check_painted_size(*found, *rule)
                assert found[0] == height and abs(found[1] - wanted[1]) <= unit
                crossed += found[1] != max(unit, unit * round(wanted[1] / unit))
                continue
            with pytest.raises(ValueError, match="Near by are") as refused:
                check_painted_size(height, unit * max(1, round(wanted[1] / unit)), *rule)
            near = tuple(int(one) for one in str(refused.value).split("Near by are ")[1].rstrip(".").split(" and "))
            check_painted_size(*near, *rule)
    assert crossed


def test_strength_0_is_the_base_without_references_in_all_octaves(pipe):
    base = run(pipe, None, height=LARGE, width=LARGE)
    assert torch.equal(run(pipe, granularity_scale=0.0), base)
    assert not torch.equal(run(pipe), base)


def test_blocks_that_are_all_0_are_strength_0_in_all_octaves(pipe):
    made = [run(pipe, granularity_scale={"color": one}) for one in ({"up": 0.0}, 0, {"up": 1.0})]
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])


@pytest.mark.parametrize("name", ["texture", "shape"])
def test_a_strength_of_0_takes_a_reference_out_of_the_octaves(pipe, name):
    """What is left is what the others make of it alone."""
    others = {key: one for key, one in REFERENCES.items() if key != name}
    size = {"height": LARGE, "width": LARGE}
    torch.testing.assert_close(run(pipe, granularity_scale={name: 0.0}, **size), run(pipe, others, **size))


def test_canvas_and_sketch_are_those_of_the_output_at_every_size(pipe):
    features = pipe.encode_reference(REFERENCES)
    assert features["shape"][0]["layout_structure"].shape[2:] == (LARGE, LARGE)
    assert "layout_tiles" in features["texture"][0]
    strengths = pipe.mg_adapter.strengths(1.0)
    made = pipe.mg_adapter.assemble_conditioning(
        pipe.unet, features, strengths, (SIZE // 2, SIZE // 2), layout_size=(LARGE, LARGE)
    )
    layout = made.layout
    assert layout.canvas.shape == (1, 1, LARGE, LARGE) and layout.sketch.shape == (1, 3, LARGE, LARGE)
    assert layout.sketch.abs().max() <= 1 and (layout.canvas_scale == 1).all() and (layout.sketch_scale == 1).all()
    assert torch.equal(run(pipe), run(pipe, None, reference_embeds=features))


def test_regions_count_where_they_are_in_every_octave(pipe):
    left = {"image": REFERENCES["texture"], "region": (0, 0, 0.5, 1)}
    features = pipe.encode_reference({"texture": left})
    strengths = pipe.mg_adapter.strengths({"texture": 0.7})
    layout = pipe.mg_adapter.assemble_conditioning(
        pipe.unet, features, strengths, (SIZE // 2, SIZE // 2), layout_size=(LARGE, LARGE)
    ).layout
    torch.testing.assert_close(layout.canvas_scale[..., : LARGE // 2], torch.full((1, 1, LARGE, LARGE // 2), 0.7))
    assert not layout.canvas_scale[..., LARGE // 2 :].any() and not layout.sketch_scale.any()


def test_texture_scale_is_of_the_reference_times_that_of_the_call(pipe):
    own = {**REFERENCES, "texture": {"image": REFERENCES["texture"], "scale": 2.0}}
    assert torch.equal(run(pipe, own), run(pipe, texture_scale=2.0))
    assert torch.equal(run(pipe, own, texture_scale=0.5), run(pipe))
    assert not torch.equal(run(pipe, own), run(pipe))


@pytest.mark.parametrize("scale", [0, -1, 9, float("nan"), "much"])
def test_scales_that_cannot_be_are_refused(pipe, scale):
    with pytest.raises(ValueError, match="from 0.125 to 8"):
        run(pipe, {"texture": {"image": picture(1), "scale": scale}})
    with pytest.raises(ValueError, match="from 0.125 to 8"):
        run(pipe, {"texture": picture(1)}, texture_scale=scale)


def test_a_scale_of_another_granularity_is_refused(pipe):
    with pytest.raises(ValueError, match='texture reference has a "scale".*a shape reference has none'):
        run(pipe, {"shape": {"image": picture(1), "scale": 2.0}})


def test_the_free_assignment_is_left_to_the_generator(pipe):
    given = {"color": picture(1), "shape": picture(3)}
    free = [run(pipe, given, seed, assignment="free") for seed in (0, 0, 1)]
    assert torch.equal(free[0], free[1]) and not torch.equal(free[0], free[2])
    assert not torch.equal(free[0], run(pipe, given))


def test_an_unknown_assignment_is_refused(pipe):
    with pytest.raises(ValueError, match='`assignment` must be "light" or "free", got \'dark\''):
        run(pipe, assignment="dark")


@pytest.mark.parametrize("name", ["color", "texture", "shape"])
def test_cards_serve_up_to_256_pixels(pipe, tmp_path, name):
    """At that size they are what the picture is, bit for bit."""
    path = str(tmp_path / f"{name}.safetensors")
    pipe.mg_encoder.save_card(path, name, REFERENCES[name])
    (own,), (kept,) = (
        pipe.mg_encoder.encode({name: one}, (SIZE, SIZE), layout_size=(256, 256))[name]
        for one in (REFERENCES[name], path)
    )
    assert own.keys() == kept.keys() and all(torch.equal(own[key], kept[key]) for key in own)
    assert run(pipe, {**REFERENCES, name: path}).shape[2:] == (LARGE, LARGE)
    if name != "color":
        with pytest.raises(
            ValueError, match="up to 256 x 256.*is to have 512 x 352, which takes a card of 425 x 425"
        ) as told:
            pipe.mg_encoder.encode({name: path}, (SIZE, SIZE), layout_size=(352, 512))
        assert f"encode PICTURE -g {name} --size 425 -o" in str(told.value) and "side=425" in str(told.value)
        with pytest.raises(ValueError, match="No card serves more than 1024 x 1024: give the picture itself"):
            pipe.mg_encoder.encode({name: path}, (SIZE, SIZE), layout_size=(1280, 1280))


@pytest.mark.parametrize("name", ["texture", "shape"])
def test_a_card_may_be_made_for_larger_pictures(pipe, tmp_path, name):
    """As the message says; at its own size it is what the picture is, bit for bit, and it serves smaller ones."""
    path = str(tmp_path / f"{name}.safetensors")
    pipe.mg_encoder.save_card(path, name, REFERENCES[name], side=425)
    (own,), (kept,) = (
        pipe.mg_encoder.encode({name: one}, (SIZE, SIZE), layout_size=(512, 512))[name]
        for one in (REFERENCES[name], path)
    )
    assert own.keys() == kept.keys() and all(torch.equal(own[key], kept[key]) for key in own)
    for size in ((352, 512), (256, 256), (64, 96)):
        (smaller,), (of_picture,) = (
            pipe.mg_encoder.encode({name: one}, (SIZE, SIZE), layout_size=size)[name]
            for one in (path, REFERENCES[name])
        )
        assert {key: one.shape for key, one in smaller.items()} == {key: one.shape for key, one in of_picture.items()}
    with pytest.raises(ValueError, match="takes a card of 1024 x 1024.*--size 1024"):
        pipe.mg_encoder.encode({name: path}, (SIZE, SIZE), layout_size=(1024, 1024))
    for side in (1025, 0, 2.5):
        with pytest.raises(ValueError, match="up to 1024 x 1024 pixels, or others of that area; got a side of"):
            pipe.mg_encoder.save_card(path, name, REFERENCES[name], side=side)


def test_a_texture_card_that_is_laid_coarser_serves_less(pipe, tmp_path):
    path = str(tmp_path / "texture.safetensors")
    pipe.mg_encoder.save_card(path, "texture", picture(2))
    pipe.mg_encoder.encode({"texture": {"image": path, "scale": 2.0}}, (SIZE, SIZE), layout_size=(128, 128))
    with pytest.raises(
        ValueError, match="is to have 256 x 256, its texture 2 times as coarse, which takes a card of 512 x 512"
    ):
        pipe.mg_encoder.encode({"texture": path}, (SIZE, SIZE), layout_size=(256, 256), texture_scale=2.0)


def test_features_of_the_base_size_are_refused_for_a_larger_picture(pipe):
    features = pipe.encode_reference(REFERENCES, SIZE, SIZE)
    with pytest.raises(ValueError, match="were made for pictures of another size.*encode_reference"):
        run(pipe, None, reference_embeds=features)


def test_a_detail_network_that_does_not_fit_is_refused(pipe):
    from diffusers import UNet2DModel

    other = UNet2DModel(sample_size=8, in_channels=3, out_channels=3, block_out_channels=(32,), norm_num_groups=8,
                        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",))  # fmt: skip
    with pytest.raises(ValueError, match="detail network.*takes 46 channels and gives 12, this one 3 and 3"):
        MGPipeline.from_pipe(pipe, mg_detail=other)
    with pytest.raises(ValueError, match="must be a component or `None`.*pass `mg_detail=pipe.mg_detail`"):
        MGPipeline.from_pipe(pipe, mg_detail=("diffusers", "UNet2DModel"))


def test_what_an_index_says_of_absent_parts_is_none(pipe):
    absent = dict.fromkeys(("mg_detail", "image_encoder", "feature_extractor"), (None, None))
    made = MGPipeline.from_pipe(pipe, **absent)
    assert made.mg_detail is None and made.image_encoder is None and made.feature_extractor is None


def test_it_is_saved_and_loaded_with_the_pipeline(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    loaded = MGPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    torch.testing.assert_close(run(loaded), run(pipe), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(pipe, dtype):
    import copy

    parts = {
        name: copy.deepcopy(part).to(dtype) if isinstance(part, torch.nn.Module) else part
        for name, part in pipe.components.items()
    }
    half = MGPipeline(**parts)
    half.set_progress_bar_config(disable=True)
    made = run(half)
    assert made.shape[2:] == (LARGE, LARGE) and made.isfinite().all()


def test_many_prompts_and_latents(pipe):
    assert run(pipe, num_images_per_prompt=2).shape == (2, 3, LARGE, LARGE)
    assert run(pipe, prompt=["a", "b"]).shape == (2, 3, LARGE, LARGE)
    assert run(pipe, output_type="latent").shape[2:] == (SIZE // 2, SIZE // 2)
