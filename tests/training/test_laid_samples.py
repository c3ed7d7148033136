"""Canvas and sketch of a larger picture in the samples of stage base: what they show, of which references, and a run."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mg_diffusion import MGPipeline
from mg_diffusion.encoder.views import rgb_to_lab
from mg_diffusion.training import base, detail_pool
from mg_diffusion.training.arguments import parse_args
from mg_diffusion.training.crossings import add_texture
from mg_diffusion.training.detail_pool import build_rows, crossed_pairs, lay_out_photos
from mg_diffusion.training.laid_samples import LAID_SHARE, build_laid_samples
from mg_diffusion.training.pictures import Pictures
from mg_diffusion.training.samples import build_samples
from mg_diffusion.training.settings import Supervision


SIDE, SMALL, GAIN = 64, 32, 1.3


@pytest.fixture(scope="module")
def large():
    from mg_diffusion.training.renderer import render

    drawn = np.stack([render(i, i + 7, i + 3, size=SIDE) for i in range(4)])
    whole = torch.from_numpy((drawn * 255).round().astype(np.uint8)).permute(0, 3, 1, 2).contiguous()
    return Pictures(whole, whole.flip(2), [f"picture {i}" for i in range(4)])


@pytest.fixture(scope="module")
def stream(large):
    def build(composite=0.5, rendered=0.2, seed=0, num_materials=2):
        materials = large.whole[:num_materials, :, ::2, ::2].contiguous() if num_materials else None
        supervision = Supervision(4, 4, composite, rendered, augment=True, seed=seed, cache_dir=None)
        samples = build_samples(large.resize(SMALL), 50, supervision, num_tiles=8)
        return build_laid_samples(large, materials, samples, GAIN, 6, supervision)

    return build


@pytest.fixture(scope="module")
def laid(stream):
    """The samples of a kind that are laid."""

    def find(**shares):
        samples = stream(**shares)
        return samples, [sample for sample in map(samples.__getitem__, range(50)) if is_laid(samples, sample)]

    return find


def is_laid(samples, sample):
    return bool(sample["has_sketch"]) and sample["tiles"].shape == (1, SMALL, SMALL) and bool(sample["mask"].all())


def test_a_sample_is_a_function_of_seed_and_number_and_gives_one_whole_canvas(stream):
    one, again, other = stream(), stream(), stream(seed=1)
    forms = set()
    for index in range(20):
        sample = one[index]
        assert all(torch.equal(value, again[index][name]) for name, value in sample.items() if name != "caption")
        forms.add(tuple((name, value.shape) for name, value in sorted(sample.items()) if name != "caption"))
        assert sample["tiles"].shape == (1, SMALL, SMALL) and torch.isfinite(sample["tiles"]).all()
    assert len(forms) == 1
    assert not all(torch.equal(one[i]["image"], other[i]["image"]) for i in range(5))


def test_a_laid_photograph_is_the_shrunk_one_under_its_own_sketch(laid, large):
    samples, found = laid(composite=0.0, rendered=0.0)
    assert len(found) > 5 and {bool(sample["is_flipped"]) for sample in found} == {True, False}
    for sample in found:
        item, flip = int(sample["item"]), bool(sample["is_flipped"])
        if item < 0 or item >= len(large):  # an edit that goes on with what surrounds its hole
            continue
        shrunk = F.adaptive_avg_pool2d(large.whole[item].float() / 255, SMALL)
        sketch = F.adaptive_avg_pool2d(samples.rows["photo"]("sketch", item).float() / 255, SMALL)
        shrunk, sketch = (one.flip(-1) if flip else one for one in (shrunk, sketch))
        assert torch.allclose(sample["image"], shrunk * 2 - 1, atol=1e-6)
        assert torch.equal(sample["sketch"], rgb_to_lab(sketch[None])[0])
        assert torch.equal(sample["points"], samples.pool.points[item].float())


def test_a_laid_crossing_is_its_layout_shrunk_and_has_the_references_it_was_made_of(laid, large):
    samples, found = laid(composite=1.0, rendered=0.0)
    assert 10 < len(found) < 40  # the others are crossings of the base's own size, or have a hole
    canvases = [samples.rows["photo"]("quilt", item) for item in range(4)]
    canvases += [samples.rows["material"]("canvas", item) for item in range(2)]
    seen = set()
    for sample in found:
        flip = bool(sample["is_flipped"])
        told = sample["tiles"].flip(-1) if flip else sample["tiles"]
        fits = [torch.allclose(GAIN * F.adaptive_avg_pool2d(one.float(), SMALL), told, atol=1e-6) for one in canvases]
        assert sum(fits) == 1
        texture = fits.index(True)
        seen.add(texture)
        entry = next(
            e
            for e in range(len(samples.pairs))
            if torch.equal(samples.pool.points[samples.pairs[e][0]].float(), sample["points"])
            and torch.allclose(picture(samples, e, canvases[texture], flip), sample["image"], atol=1e-5)
        )
        shape = samples.pool.structure[samples.pairs[entry][1]].float()
        assert torch.equal(sample["structure"], shape.flip(-1) if flip else shape)
        at = texture if texture < 4 else len(samples.pool) - 2 + texture - 4
        assert sample["contrast"] == samples.pool.contrast[at]
    assert seen & {0, 1, 2, 3} and seen & {4, 5}


def picture(samples, entry, canvas, flip):
    image = add_texture(samples.rows["crossed"]("crossed", entry).float(), canvas.float())
    image = F.adaptive_avg_pool2d(image, SMALL) * 2 - 1
    return image.flip(-1) if flip else image


def test_without_materials_all_textures_are_those_of_photographs(stream):
    samples = stream(composite=1.0, rendered=0.0, num_materials=0)
    assert samples.num_materials == 0 and len(samples.pool) == 2 * 4 + 4
    assert all(torch.isfinite(samples[index]["image"]).all() for index in range(10))


def test_some_of_each_kind_are_not_laid(laid):
    for kind, share in LAID_SHARE.items():
        _, found = laid(composite=float(kind == "composite"), rendered=0.0)
        assert 0.3 * share < len(found) / 50 < 1


def test_crossings_know_their_photographs_whatever_the_chunks(large, monkeypatch):
    monkeypatch.setattr(detail_pool, "CHUNK", 2)
    rows, pairs = build_rows(large.whole, None, 1.0, 3, None), crossed_pairs(4, 1.0, 3)
    assert len(pairs) == len(rows["crossed"]) == 4 and pairs[:2].max() < 2 <= pairs[2:].min()
    for entry, (color, shape) in enumerate(pairs):
        first = 2 * (entry // 2)
        alone = lay_out_photos(large.whole[first : first + 2], 2, 3 + 1000 * (entry // 2))
        assert torch.equal(alone["crossed"][entry % 2], rows["crossed"]("crossed", entry))
        assert {int(color), int(shape)} <= {first, first + 1}


def test_a_run_with_a_layout_learns_and_its_weights_load(flags, folder, tmp_path):
    options = {"layout_size": SIDE, "materials_dir": folder, "num_laid_crossings": 4, "resolution": SMALL}
    records = base.run(parse_args(flags("base", tmp_path, **options, min_image_size=16)))
    assert [record["step"] for record in records if "val_loss" in record] == [2, 4]
    assert MGPipeline.from_pretrained(tmp_path / "weights").mg_adapter is not None


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"layout_size": SMALL}, "--layout_size must be a multiple of 8 above --resolution 32, got 32"),
        ({"layout_size": 60}, "--layout_size must be a multiple of 8 above --resolution 32, got 60"),
        ({"materials_dir": "somewhere"}, "--materials_dir needs --layout_size"),
        ({"num_laid_crossings": 9}, "--num_laid_crossings needs --layout_size"),
        ({"layout_size": 64, "num_laid_crossings": 0}, "--num_laid_crossings must be at least 1, got 0"),
        ({"layout_size": 64, "streaming": ""}, "--streaming contradicts --layout_size"),
        ({"layout_size": 64, "text_only": "", "num_crossings": None, "num_rendered": None}, "contradicts --text_only"),
    ],
)
def test_flags_that_cannot_be_are_refused(flags, tmp_path, capsys, changed, message):
    with pytest.raises(SystemExit):
        parse_args(flags("base", tmp_path, **changed))
    assert message in capsys.readouterr().err
