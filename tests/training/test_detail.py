"""Stage `detail`: what its samples are made of, a few steps, the same after an interruption, weights that load."""

import json
import math
import shutil

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file

from mg_diffusion.encoder.views import rgb_to_lab
from mg_diffusion.octaves import build_detail_unet
from mg_diffusion.training import detail, detail_pool
from mg_diffusion.training.arguments import parse_args
from mg_diffusion.training.detail_pool import Rows, build_rows, colors_of
from mg_diffusion.training.detail_samples import DetailSamples, Layers, faulty


SIDE, CROP = 64, 32


@pytest.fixture(scope="module")
def photos():
    from mg_diffusion.training.renderer import render

    pictures = np.stack([render(i, i + 7, i + 3, size=SIDE) for i in range(4)])
    return torch.from_numpy((pictures * 255).round().astype(np.uint8)).permute(0, 3, 1, 2).contiguous()


@pytest.fixture(scope="module")
def rows(photos):
    return build_rows(photos, photos[:2, :, ::2, ::2].contiguous(), crossings_a_photo=0.5, seed=0, cache_dir=None)


@pytest.fixture(scope="module")
def small(folder):
    """Flags of a very small run."""

    def build(output_dir, **changed):
        chosen = {
            "resolution": SIDE,
            "crop_size": CROP,
            "materials_dir": folder,
            "num_rendered": None,
            "layers_per_block": 1,
        }
        return {**chosen, **changed}

    return build


@pytest.fixture(scope="module")
def trained(flags, small, tmp_path_factory):
    output = tmp_path_factory.mktemp("detail")
    cache = tmp_path_factory.mktemp("cache")
    return output, detail.run(parse_args(flags("detail", output, **small(output, cache_dir=cache)))), cache


# -- samples ----------------------------------------------------------------------------------------------------------
def test_a_sample_is_a_function_of_seed_and_number(rows):
    first, again, other = (DetailSamples(rows, CROP, 9, seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[3][name], again[3][name]) for name in first[3])
    assert not torch.equal(first[3]["image"], other[3]["image"])


def test_samples_are_of_one_form_and_all_kinds_are_drawn(rows):
    stream = DetailSamples(rows, CROP, 60, seed=0)
    samples = [stream[index] for index in range(60)]
    assert {tuple((name, value.shape) for name, value in sample.items()) for sample in samples} == {
        (
            ("image", (3, CROP, CROP)),
            ("smaller", (3, CROP // 2, CROP // 2)),
            ("canvas", (1, CROP, CROP)),
            ("sketch", (3, CROP, CROP)),
            ("canvas_scale", (1, CROP // 2, CROP // 2)),
            ("sketch_scale", (1, CROP // 2, CROP // 2)),
            ("hole", (1, CROP // 2, CROP // 2)),
            ("level", ()),
            ("is_direct", ()),
        )
    }
    assert all(value.isfinite().all() for sample in samples for value in sample.values())
    for name in ("canvas_scale", "sketch_scale", "hole"):
        assert {0.0, 1.0} <= {float(sample[name].min()) for sample in samples}
    assert 0.6 < sum(bool(sample["is_direct"]) for sample in samples) / 60 < 0.9
    levels = [float(sample["level"]) for sample in samples]
    assert min(levels) == 0 and 0.1 < max(levels) <= 0.5


def test_what_is_restored_has_the_faults_it_is_told_of(rows):
    stream = DetailSamples(rows, CROP, 200, seed=1)
    restored = [sample for sample in map(stream.__getitem__, range(200)) if sample["is_direct"]]
    faulty_ones = [sample for sample in restored if sample["sketch_scale"].min() < 0]
    assert 0 < len(faulty_ones) < len(restored)
    for sample in faulty_ones:
        picture = -sample["sketch"]
        torch.testing.assert_close(torch.nn.functional.avg_pool2d(picture, 2), sample["smaller"])
        deviation, level = float((picture - sample["image"]).std()), float(sample["level"])
        if level > 0.1 and sample["canvas_scale"].max() == 0:
            assert 0.6 * level < deviation < 1.2 * level  # less where noise is clipped
    for sample in restored:
        if sample["sketch_scale"].max() == 0:
            assert not sample["sketch"].any() and sample["level"] == 0


def test_a_strength_is_the_share_of_the_canvas_and_leaves_the_rest_to_the_pictures_own_texture():
    plain = torch.tensor([50.0, 0, 0]).view(3, 1, 1).expand(3, 8, 8)
    own, canvas = torch.full((1, 8, 8), 0.5), torch.full((1, 8, 8), -1.0)
    layers = Layers(plain, own, canvas, canvas, torch.zeros(3, 8, 8))
    lightness = [
        float(rgb_to_lab(layers.picture(torch.full((1, 8, 8), strength))[None] / 2 + 0.5)[0, 0].mean())
        for strength in (0.0, 0.4, 1.0, 1.3)
    ]
    assert lightness == pytest.approx([55, 49, 40, 37], abs=0.1)


def test_a_photograph_in_place_is_itself_at_any_strength_up_to_1(rows, photos):
    stream = DetailSamples(rows, CROP, 1, seed=0)
    layers = Rows.__call__(rows["photo"], "rgb", 0)
    detail_of = rows["photo"]("detail", 0).float()
    plain = rgb_to_lab(photos[:1].float() / 255)[0]
    plain[0] -= 10 * detail_of[0]
    made = Layers(plain, detail_of, detail_of, detail_of, torch.zeros(3, SIDE, SIDE))
    for strength in (0.0, 0.5, 1.0):
        picture = (made.picture(torch.full((1, SIDE, SIDE), strength)) + 1) * 127.5
        assert (picture - layers.float()).abs().max() < 1
    assert stream.fingerprint


def test_without_a_level_the_smaller_picture_has_no_fault():
    rng = np.random.default_rng(0)
    picture, hole = torch.rand(3, 16, 16), torch.ones(1, 16, 16)
    assert all(torch.equal(faulty(rng, picture, picture * 0, hole, 0.0), picture) for _ in range(20))
    assert not torch.equal(faulty(rng, picture, picture * 0, hole, 0.1), picture)


def test_a_hole_was_filled_with_less_than_the_truth_and_only_it():
    hole = torch.zeros(1, 16, 16)
    hole[:, 4:8, 4:8] = 1
    picture = torch.rand(3, 16, 16)
    made = faulty(np.random.default_rng(0), picture, picture * 0, hole, 0.0)
    changed = (made != picture).any(0)
    assert torch.equal(changed, hole[0] > 0)


# -- what is laid out -------------------------------------------------------------------------------------------------
def test_sketches_are_light_where_the_photograph_is(rows):
    photo = rows["photo"]
    for item in range(len(photo)):
        own = photo("smooth", item).float()[0].flatten()
        laid = rgb_to_lab(photo("sketch", item)[None].float() / 255)[0, 0].flatten()
        assert np.corrcoef(own, laid)[0, 1] > 0.7


def test_colors_stand_for_a_picture_of_any_size():
    assert colors_of(torch.zeros(1, 3, 256, 256)).shape == (1, 1024, 3)
    assert colors_of(torch.zeros(1, 3, 32, 32)).shape == (1, 1024, 3)


def test_a_larger_part_of_the_data_begins_with_what_is_laid_out_already(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(detail_pool, "CHUNK", 2)
    build_rows(photos[:2], None, 0.5, 0, str(tmp_path))
    (first,) = tmp_path.iterdir()
    written = first.stat().st_mtime_ns
    rows = build_rows(photos, None, 0.5, 0, str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 2 and first.stat().st_mtime_ns == written
    assert [len(rows[kind]) for kind in ("photo", "crossed")] == [4, 2]
    assert all(torch.equal(rows["photo"]("rgb", item), photos[item]) for item in range(4))


# -- runs -------------------------------------------------------------------------------------------------------------
def test_a_run_measures_and_shows_held_out_crops(trained):
    output, records, cache = trained
    assert [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()] == records
    measured = [record for record in records if "val_loss" in record]
    assert [record["step"] for record in measured] == [2, 4]
    assert all(math.isfinite(value) for record in records for value in record.values())
    with PIL.Image.open(output / "grid-000004.png") as sheet:
        assert sheet.height == 5 * 128
    assert {path.name.split("-")[1] for path in cache.iterdir()} == {"photos", "materials"}


def test_weights_are_a_stock_network(trained):
    unet = UNet2DModel.from_pretrained(trained[0] / "weights")
    assert unet.config.in_channels == 46 and unet.config.block_out_channels == [32, 32]
    assert not any("attentions" in name for name, _ in unet.named_parameters())


def test_a_resumed_run_ends_with_the_same_weights_bit_for_bit(trained, flags, small, tmp_path):
    shutil.copytree(trained[0] / "checkpoint-2", tmp_path / "checkpoint-2")
    options = small(tmp_path, cache_dir=trained[2], resume_from_checkpoint="latest")
    detail.run(parse_args(flags("detail", tmp_path, **options)))
    file = "weights/diffusion_pytorch_model.safetensors"
    ended, resumed = load_file(trained[0] / file), load_file(tmp_path / file)
    assert all(torch.equal(ended[name], resumed[name]) for name in ended)


def test_a_run_starts_from_a_network(trained, flags, small, tmp_path):
    options = small(tmp_path, init_from=trained[0] / "weights", layers_per_block=None, block_out_channels=None)
    options |= {"max_train_steps": 1, "learning_rate": 1e-9, "lr_warmup_steps": 0, "materials_dir": None}
    detail.run(parse_args(flags("detail", tmp_path, **options)))
    start, after = (UNet2DModel.from_pretrained(place / "weights").state_dict() for place in (trained[0], tmp_path))
    assert all(torch.allclose(start[name], after[name], atol=1e-6) for name in start)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"crop_size": 24}, "--crop_size must be a multiple of 16"),
        ({"crop_size": 48}, "at most half of --resolution 64"),
        ({"init_from": "x"}, "contradicts --init_from"),
        ({"streaming": ""}, "--streaming contradicts stage detail"),
        ({"resolution": 32, "crop_size": 16}, "--materials_dir needs --resolution of at least 64"),
        ({"layers_per_block": 0}, "--layers_per_block must be at least 1"),
    ],
)
def test_contradictions_are_refused_with_their_reason(flags, small, tmp_path, capsys, changed, message):
    with pytest.raises(SystemExit):
        parse_args(flags("detail", tmp_path, **small(tmp_path, **changed)))
    assert message in capsys.readouterr().err


def test_a_new_network_has_the_size_that_is_documented():
    assert sum(parameter.numel() for parameter in build_detail_unet().parameters()) == 2_095_148
