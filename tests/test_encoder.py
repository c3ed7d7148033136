"""MGEncoder: the features it promises, how references combine, and that loading never ends in random weights."""

import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from mg_diffusion import MGEncoder
from mg_diffusion.encoder.filling import grow_into
from mg_diffusion.encoder.granularity_cards import read_card
from mg_diffusion.encoder.views import rgb_to_lab
from mg_diffusion.training.renderer import render


WEIGHTS = "diffusion_pytorch_model.safetensors"
BACKBONE = {
    "model_type": "convnextv2",
    "num_channels": 1,
    "patch_size": 2,
    "hidden_sizes": [8, 12],
    "num_stages": 2,
    "depths": [1, 1],
    "out_features": ["stage1", "stage2"],
}
TINY = {"color_channels": 8, "texture_channels": 8, "num_tiles": 6, "shape_backbone": BACKBONE}
ALL = ("color", "texture", "shape")
SIZE = (32, 32)


def tiny_encoder(**config):
    torch.manual_seed(0)
    return MGEncoder(**{**TINY, **config}).eval()


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder()


def picture(seed, size=64):
    return render(seed, seed, seed, size=size)


def assert_same(features, expected, **tolerance):
    assert features.keys() == expected.keys()
    for name in features:
        ((found,), (wanted,)) = features[name], expected[name]
        assert found.keys() == wanted.keys()
        for key, value in found.items():
            torch.testing.assert_close(value, wanted[key], **(tolerance or {"rtol": 0, "atol": 0}))


# -- features ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [(32, 32), (64, 64), (48, 80)])
def test_features_have_the_documented_names_and_shapes(encoder, size):
    features = encoder.encode(dict.fromkeys(ALL, picture(1)), size)
    assert {name: set(value) for name, (value,) in features.items()} == {
        "color": {"vector", "palette"},
        "texture": {"vector", "tiles"},
        "shape": {"vector", "map_0", "map_1", "structure", "light"},
    }
    assert features["color"][0]["palette"].shape == (1, 256, 3)
    assert features["shape"][0]["structure"].shape == (1, 3, *size)
    assert features["color"][0]["vector"].shape == (1, 245 + 8)
    assert features["texture"][0]["vector"].shape == (1, 343 + 2 * 8)
    assert features["texture"][0]["tiles"].shape == (1, 6, 24, 24)
    assert features["shape"][0]["vector"].shape == (1, 4 * 12)
    assert features["shape"][0]["map_0"].shape == (1, 8, size[0] // 2, size[1] // 2)
    assert features["shape"][0]["map_1"].shape == (1, 12, size[0] // 4, size[1] // 4)
    assert encoder.vector_sizes == {name: features[name][0]["vector"].shape[1] for name in ALL}
    assert encoder.map_channels == (8, 12)
    assert all(
        torch.isfinite(value).all() and not value.requires_grad for (f,) in features.values() for value in f.values()
    )


def test_default_encoder_keeps_three_levels_of_shape():
    encoder = MGEncoder()
    assert encoder.map_channels == (32, 64, 96)
    assert encoder.vector_sizes == {"color": 245 + 64, "texture": 343 + 128, "shape": 4 * 96}
    assert encoder.config.shape_backbone["model_type"] == "convnextv2"


@pytest.mark.parametrize("names", [("color",), ("shape", "texture"), ("texture",)])
def test_an_encoder_may_know_fewer_granularities(names):
    encoder = tiny_encoder(granularities=names)
    assert tuple(encoder.vector_sizes) == names and bool(encoder.map_channels) == ("shape" in names)
    assert set(encoder.encode(dict.fromkeys(names, picture(1)), SIZE)) == set(names)
    with pytest.raises(ValueError, match=r"Unknown granularity .* this encoder knows"):
        encoder.encode(dict.fromkeys(ALL, picture(1)), SIZE)


def test_another_backbone_may_read_shape():
    backbone = {"model_type": "resnet", "num_channels": 1, "embedding_size": 8, "hidden_sizes": [8, 16]}
    backbone |= {"depths": [1, 1], "layer_type": "basic", "out_features": ["stage1", "stage2"]}
    encoder = tiny_encoder(shape_backbone=backbone)
    features = encoder.encode({"shape": picture(1)}, SIZE)["shape"][0]
    assert encoder.map_channels == (8, 16) and features["vector"].shape == (1, 64)


@pytest.mark.parametrize("channels", [1, 4, 5, 12])
def test_the_backbone_takes_as_much_of_the_shape_view_as_it_has_channels(channels):
    encoder = tiny_encoder(shape_backbone={**BACKBONE, "num_channels": channels})
    assert encoder.encode({"shape": picture(1)}, SIZE)["shape"][0]["map_0"].shape[2:] == (16, 16)


@pytest.mark.parametrize("channels", [2, 3, 13])
def test_a_backbone_of_other_channels_is_refused(channels):
    with pytest.raises(ValueError, match=rf"must take 1 \(edges\) or 4 to 12 channels .* is {channels}"):
        tiny_encoder(shape_backbone={**BACKBONE, "num_channels": channels})


@pytest.mark.parametrize("granularities", [(), ("color", "light")])
def test_unknown_granularities_are_refused_at_construction(granularities):
    with pytest.raises(ValueError, match=r"granularities must be some of \('color', 'texture', 'shape'\), got"):
        MGEncoder(granularities=granularities)


@pytest.mark.parametrize("size", [(8.0, 8), 8, (0, 0), (8,), "64", None])
def test_sizes_that_are_none_are_refused(encoder, size):
    for given in ({"size": size}, {"size": SIZE, "layout_size": size}):
        if size is not None or "layout_size" not in given:
            with pytest.raises(ValueError, match="size` must be .height, width., two positive integers"):
                encoder.encode({"shape": torch.rand(3, 64, 64)}, **given)
    with pytest.raises(ValueError, match="two positive integers"):
        encoder.compose({}, size)


@pytest.mark.parametrize("name", ALL)
def test_a_card_has_the_shapes_that_its_branch_names(encoder, tmp_path, name):
    encoder.save_card(tmp_path / "a.safetensors", name, torch.rand(3, 40, 64))
    kept = load_file(tmp_path / "a.safetensors")
    assert set(kept) == set(encoder.branches[name].card_shapes)
    encoder.check_card(kept, name)


@pytest.mark.parametrize(
    ("text", "palette"), [("#ff8800", ["#ff8800"]), ("#ff8800:3, #224466", ["#ff8800:3", "#224466"])]
)
def test_a_palette_may_be_a_text(encoder, tmp_path, text, palette):
    for one, other in ((text, palette), ({"image": text}, {"image": palette}), ([text, palette], [palette, palette])):
        assert_same(encoder.encode({"color": one}, SIZE), encoder.encode({"color": other}, SIZE))
    with pytest.raises(ValueError, match="serve as color references, not as shape"):
        encoder.encode({"shape": text}, SIZE)
    for number, one in enumerate((text, palette)):
        encoder.save_card(tmp_path / f"{number}.safetensors", "color", one)
    (said, _), (expected, _) = (read_card(tmp_path / f"{number}.safetensors") for number in range(2))
    assert said == expected  # the hash of the palette, too


def test_none_and_missing_granularities_are_left_out(encoder):
    assert set(encoder.encode({"color": None, "shape": picture(1), "texture": None}, SIZE)) == {"shape"}
    assert encoder.encode({}, SIZE) == {}


def test_features_of_a_granularity_do_not_depend_on_the_others(encoder):
    together = encoder.encode({"color": picture(1), "texture": picture(2), "shape": picture(3)}, SIZE)
    for seed, name in enumerate(ALL, start=1):
        assert_same({name: together[name]}, encoder.encode({name: picture(seed)}, SIZE))


@pytest.mark.parametrize("size", [(64, 64), (200, 100), (30, 300), (23, 23), (7, 9), (1000, 70)])
def test_references_of_any_size_are_brought_to_the_working_size(encoder, size):
    loaded = encoder.load(np.random.default_rng(0).random((*size, 3)))
    height, width = loaded["rgb"].shape[2:]
    assert height % 8 == width % 8 == 0 and min(height, width) >= 24
    assert loaded["mask"].shape == (1, 1, height, width) and loaded["weight"] == 1.0
    assert loaded["rgb"].min() >= 0 and loaded["rgb"].max() <= 1
    assert np.log(height / width) == pytest.approx(np.log(size[0] / size[1]), abs=0.3) or min(height, width) == 24
    assert 0.7 < height * width / 64**2 < 1.5 or min(height, width) == 24
    encoder.encode(dict.fromkeys(ALL, np.random.default_rng(0).random((*size, 3))), SIZE)


def test_features_hardly_depend_on_the_resolution_of_the_reference(encoder):
    small, large, other = picture(2), picture(2).repeat(3, 0).repeat(3, 1), picture(3)
    one, same, far = (encoder.encode({"color": x}, SIZE)["color"][0]["vector"] for x in (small, large, other))
    assert (same - one).norm() < 0.1 * (far - one).norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("content", ["flat", "black", "textured"])
def test_half_precision_features_are_finite_and_close(encoder, dtype, content):
    reference = {"flat": np.full((64, 64, 3), 0.6), "black": np.zeros((64, 64, 3)), "textured": picture(4)}[content]
    half = tiny_encoder().to(dtype).encode(dict.fromkeys(ALL, reference), SIZE)
    full = encoder.encode(dict.fromkeys(ALL, reference), SIZE)
    for name in ALL:
        for key, value in half[name][0].items():
            assert value.dtype == dtype and torch.isfinite(value).all(), (name, key)
            if content == "textured":
                assert (value.float() - full[name][0][key]).norm() < 0.05 * full[name][0][key].norm(), (name, key)


# -- several references ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ALL)
def test_a_list_is_averaged_by_weight(encoder, name):
    a, b = picture(5), picture(6)
    one, other = (encoder.encode({name: x}, SIZE)[name][0] for x in (a, b))
    mixed = encoder.encode({name: [{"image": a, "weight": 2}, {"image": b, "weight": 1}]}, SIZE)[name][0]
    for key in mixed.keys() - {"tiles", "palette"}:
        torch.testing.assert_close(mixed[key], (2 * one[key] + other[key]) / 3)


def test_colors_of_several_references_are_shared_out_by_weight(encoder):
    references = [{"image": np.full((64, 64, 3), 0.8), "weight": 3}, ["#202020"]]
    palette = encoder.encode({"color": references}, SIZE)["color"][0]["palette"]
    assert palette.shape == (1, 256, 3) and (palette[0, :, 0] > 50).sum() == 192


@pytest.mark.parametrize("weights", [(2, 1), (1, 1), (1, 5), (1, 1000)])
def test_tiles_are_shared_out_by_weight_and_never_blended(encoder, weights):
    pictures = [picture(5), picture(6)]
    own = [encoder.encode({"texture": x}, SIZE)["texture"][0]["tiles"][0] for x in pictures]
    references = [{"image": x, "weight": w} for x, w in zip(pictures, weights, strict=True)]
    tiles = encoder.encode({"texture": references}, SIZE)["texture"][0]["tiles"]
    assert tiles.shape == (1, 6, 24, 24)
    owners = [[any(torch.equal(tile, one) for one in tiles_of) for tiles_of in own] for tile in tiles[0]]
    assert all(sum(owner) == 1 for owner in owners)
    assert sum(owner[0] for owner in owners) == round(6 * weights[0] / sum(weights))


def test_a_list_of_lists_gives_every_sample_its_own(encoder):
    a, b, c = (picture(seed) for seed in (5, 6, 7))
    references = dict.fromkeys(ALL, [[a], [b, c]])
    rows = encoder.encode(references, SIZE, batch_size=2)
    for row, reference in enumerate(([a], [b, c])):
        alone = encoder.encode(dict.fromkeys(ALL, reference), SIZE)
        assert_same({name: [{k: v[row : row + 1] for k, v in rows[name][0].items()}] for name in ALL}, alone)


def test_a_list_of_palettes_is_averaged_and_a_list_of_lists_of_palettes_is_per_sample(encoder):
    red, blue = ["#cc2211"], ["#1122cc:2", "#2244ff"]
    one, other = (encoder.encode({"color": x}, SIZE)["color"][0]["vector"] for x in (red, blue))
    torch.testing.assert_close(encoder.encode({"color": [red, blue]}, SIZE)["color"][0]["vector"], (one + other) / 2)
    rows = encoder.encode({"color": [[red], [blue]]}, SIZE, batch_size=2)["color"][0]["vector"]
    torch.testing.assert_close(rows, torch.cat([one, other]))


def test_a_palette_has_the_features_of_a_picture_of_its_colors(encoder):
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:48], picture[48:] = (0xDD, 0x33, 0x22), (0x11, 0x88, 0x66)
    from_picture, exact, reordered, other = (
        encoder.encode({"color": x}, SIZE)["color"][0]["vector"]
        for x in (picture, ["#dd3322:3", "#118866"], ["#118866:0.5", "#DD3322:1.5"], ["#3344aa"])
    )
    assert (exact - from_picture).norm() < 0.15 * (other - from_picture).norm()
    torch.testing.assert_close(reordered, exact)


@pytest.mark.parametrize("name", ALL)
def test_a_mask_borrows_from_its_part_only(encoder, name):
    left, right = picture(8), picture(9)
    both = np.concatenate([left, right], 1)
    mask = np.zeros(both.shape[:2], bool)
    mask[:, :64] = True
    changed = both.copy()
    changed[:, 100:] = picture(10)[:, 36:]
    with_mask, after = (encoder.encode({name: {"image": x, "mask": mask}}, SIZE)[name][0] for x in (both, changed))
    whole, whole_after = (encoder.encode({name: x}, SIZE)[name][0] for x in (both, changed))
    change = (after["vector"] - with_mask["vector"]).norm()
    assert change < 0.1 * (whole_after["vector"] - whole["vector"]).norm()


# -- saving and loading ------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def saved(encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    encoder.save_pretrained(folder / "mg_encoder")
    encoder.save_pretrained(folder / "mg_encoder", variant="fp16")
    UNet2DConditionModel(
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).save_pretrained(folder / "unet")
    return folder


@pytest.mark.parametrize(
    "arguments",
    [{}, {"low_cpu_mem_usage": False}, {"variant": "fp16"}, {"use_safetensors": True}, {"torch_dtype": torch.float32}],
    ids=str,
)
def test_loaded_encoder_gives_identical_features(encoder, saved, arguments):
    loaded = MGEncoder.from_pretrained(saved / "mg_encoder", **arguments)
    references = dict.fromkeys(ALL, picture(1))
    assert not loaded.training
    assert_same(loaded.encode(references, SIZE), encoder.encode(references, SIZE))


def test_loading_takes_dtype_subfolder_and_loading_info(saved):
    loaded, info = MGEncoder.from_pretrained(
        saved, subfolder="mg_encoder", torch_dtype=torch.float16, output_loading_info=True
    )
    assert loaded.dtype == torch.float16 and not info["missing_keys"] and not info["unexpected_keys"]


def test_encoder_is_a_component_of_a_pipeline(encoder, saved, tmp_path):
    class Holder(DiffusionPipeline):
        def __init__(self, mg_encoder):
            super().__init__()
            self.register_modules(mg_encoder=mg_encoder)

    Holder(encoder).save_pretrained(tmp_path)
    loaded = Holder.from_pretrained(tmp_path, mg_encoder=MGEncoder.from_pretrained(tmp_path, subfolder="mg_encoder"))
    assert_same(loaded.mg_encoder.encode({"color": picture(1)}, SIZE), encoder.encode({"color": picture(1)}, SIZE))
    again = Holder.from_pretrained(tmp_path)
    assert isinstance(again.mg_encoder, MGEncoder)
    assert_same(again.mg_encoder.encode({"color": picture(1)}, SIZE), encoder.encode({"color": picture(1)}, SIZE))


def truncate(folder, saved):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])


def take_a_unets_weights(folder, saved):
    shutil.copy(saved / "unet" / WEIGHTS, folder / WEIGHTS)


def lose_a_weight(folder, saved):
    state = load_file(folder / WEIGHTS)
    state.pop("branches.color.net.0.bias")
    save_file(state, folder / WEIGHTS)


def resize_a_weight(folder, saved):
    save_file(load_file(folder / WEIGHTS) | {"branches.color.net.0.bias": torch.zeros(3)}, folder / WEIGHTS)


DAMAGES = [
    (truncate, r"Cannot load MGEncoder from .*Unable to load weights"),
    (
        lambda folder, saved: (folder / WEIGHTS).write_bytes(b""),
        r"Cannot load MGEncoder from .*Unable to load weights",
    ),
    (lambda folder, saved: (folder / WEIGHTS).unlink(), r"Cannot load MGEncoder from .*no file named"),
    (lambda folder, saved: (folder / "config.json").unlink(), r"Cannot load MGEncoder from .*config\.json"),
    (lambda folder, saved: (folder / "config.json").write_text("{"), r"Cannot load MGEncoder from .*not a valid JSON"),
    (lambda folder, saved: shutil.rmtree(folder), r"Cannot load MGEncoder from "),
    (take_a_unets_weights, r"not those of this MGEncoder: \d+ are missing \(.+\), \d+ are unknown \(conv_in"),
    (lose_a_weight, r"1 are missing \(branches\.color\.net\.0\.bias\), 0 are unknown"),
    (resize_a_weight, r"Cannot load MGEncoder from .*branches\.color\.net\.0\.bias"),
]


@pytest.mark.parametrize("low_cpu_mem_usage", [True, False])
@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_damaged_or_foreign_weights_are_refused(saved, tmp_path, damage, message, low_cpu_mem_usage):
    folder = tmp_path / "damaged"
    shutil.copytree(saved / "mg_encoder", folder, ignore=lambda *_: ["diffusion_pytorch_model.fp16.safetensors"])
    damage(folder, saved)
    with pytest.raises(ValueError, match="(?s)" + message) as error:
        MGEncoder.from_pretrained(folder, low_cpu_mem_usage=low_cpu_mem_usage)
    assert str(folder) in str(error.value) and "check the path" in str(error.value)


def test_the_folder_of_another_model_is_refused(saved):
    with pytest.raises(ValueError, match=r"unet' are not those of this MGEncoder: .*check the path and `subfolder`"):
        MGEncoder.from_pretrained(saved, subfolder="unet")


def test_the_context_of_a_hole_is_grown_from_what_surrounds_it():
    ramp, hole = torch.linspace(0, 1, 32).expand(32, 32), torch.zeros(2, 1, 32, 32)
    image = torch.stack([ramp, ramp.T, (ramp + ramp.T) / 2]).repeat(2, 1, 1, 1)
    hole[0, :, 8:24, 10:20], hole[1, :, :, 20:] = 1, 1
    grown = grow_into(image, hole)
    known = (hole == 0).expand_as(image)
    assert torch.equal(grown[known], image[known])
    other = torch.where(hole > 0, torch.rand(2, 3, 32, 32), image)
    torch.testing.assert_close(grow_into(other, hole), grown)
    error, spread = (grown - image)[0][~known[0]].square().mean(), image[0][~known[0]].var()
    assert error < 0.2 * spread
    assert (grown[0, :, :, 10] - grown[0, :, :, 9]).abs().max() < 0.2
    assert torch.equal(grow_into(image, torch.ones_like(hole)), torch.zeros_like(image))


def test_context_features_are_those_of_the_known_part():
    torch.manual_seed(0)
    encoder = MGEncoder(**TINY).eval()
    image, hole = torch.rand(2, 3, 48, 48), torch.zeros(2, 1, 48, 48)
    hole[:, :, 12:40, 8:30] = 1
    found = encoder.encode_context(image, hole, ["color", "texture", "shape"], (24, 24))
    other = encoder.encode_context(
        torch.where(hole > 0, 1 - image, image), hole, ["color", "texture", "shape"], (24, 24)
    )
    for name in found:
        for key in found[name][0]:
            torch.testing.assert_close(found[name][0][key], other[name][0][key], msg=f"{name} {key}")
    mask = {"image": grow_into(image, hole)[1], "mask": hole[1] < 0.5}
    torch.testing.assert_close(
        encoder.encode({"color": mask}, (24, 24))["color"][0]["vector"], found["color"][0]["vector"][1:]
    )
    filled = F.interpolate(grow_into(image, hole), size=(24, 24), mode="bilinear", antialias=True)
    torch.testing.assert_close(found["shape"][0]["sketch"], rgb_to_lab(filled))
    with_another_palette = encoder.encode_context(image, hole, ["texture", "shape"], (24, 24))["shape"][0]
    assert "sketch" not in with_another_palette
    torch.testing.assert_close(with_another_palette["turn"], found["shape"][0]["turn"])
    turn = with_another_palette["turn"]
    torch.testing.assert_close(turn @ turn.transpose(1, 2), torch.eye(3).expand(2, -1, -1), atol=1e-4, rtol=0)
    assert set(encoder.encode_context(image, hole, ["color"], (24, 24))) == {"color"}
