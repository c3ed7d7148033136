"""A sample is a function of (seed, i): what it shows, what references it has, and what of them is dropped."""

import dataclasses
from collections import Counter
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from mg_diffusion.encoder.filling import grow_into
from mg_diffusion.encoder.shape import shape_view
from mg_diffusion.encoder.views import edge_preserving_smooth, rgb_to_lab
from mg_diffusion.modeling_mg_adapter import lay_palette, turn_colors
from mg_diffusion.modeling_mg_encoder import MGEncoder
from mg_diffusion.training import renderer
from mg_diffusion.training.caching import cached
from mg_diffusion.training.crossings import add_texture, assign_colors, cross_rendered, render_pictures
from mg_diffusion.training.dropout import random_mask, random_presence
from mg_diffusion.training.renderer import render_palette, render_regions
from mg_diffusion.training.samples import SampleStream, views_of
from mg_diffusion.training.view_pool import build_pool, compute_views


TILES = 16
SHARES = {"composite": 0.4, "rendered": 0.2}
ONLY = {
    "photo": {"composite": 0.0, "rendered": 0.0},
    "composite": {"composite": 1.0, "rendered": 0.0},
    "rendered": {"composite": 0.0, "rendered": 1.0},
}


@pytest.fixture
def stream(pool, pictures):
    def build(shares=SHARES, seed=0, views=None, **options):
        return SampleStream(views or pool[0], pool[1], pictures.captions, 50, seed, shares, TILES, **options)

    return build


def equal(one, other):
    same = [torch.equal(one[key], other[key]) if key != "caption" else one[key] == other[key] for key in one]
    return one.keys() == other.keys() and all(same)


def test_sample_i_is_a_function_of_seed_and_i(stream):
    one, again, other = stream(), stream(), stream(seed=1)
    backwards = [again[i] for i in reversed(range(8))][::-1]
    assert all(equal(one[i], backwards[i]) for i in range(8)) and len(one) == 50
    assert not any(equal(one[i], other[i]) or equal(one[i], one[i + 1]) for i in range(8))


@pytest.mark.parametrize("kind", ONLY)
def test_samples_have_the_documented_shapes_and_ranges(kind, stream):
    samples = [stream(ONLY[kind])[i] for i in range(6)]
    for sample in samples:
        shapes = {name: tuple(value.shape) for name, value in sample.items() if name != "caption"}
        assert shapes == {
            "image": (3, 32, 32),
            "mask": (1, 32, 32),
            "present": (3,),
            "points": (64, 3),
            "color_weights": (64,),
            "normalized": (1, 32, 32),
            "weight": (1, 32, 32),
            "contrast": (1,),
            "tiles": (TILES, 24, 24),
            "turn": (3, 3),
            "edges": (1, 32, 32),
            "structure": (3, 32, 32),
            "sketch": (3, 32, 32),
            "has_sketch": (),
            "item": (),
            "crossing": (),
            "is_flipped": (),
        }
        assert -1 <= sample["image"].min() < sample["image"].max() <= 1
        assert all(torch.isfinite(value).all() for name, value in sample.items() if name != "caption")
        assert sample["color_weights"].sum() == pytest.approx(1)
        assert kind == "photo" or sample["caption"] == ""
    assert min(sample["image"].min() for sample in samples) < 0
    if kind == "photo":
        assert any(sample["caption"].startswith("rendered picture") for sample in samples)


@pytest.mark.parametrize("kind", ["composite", "rendered"])
def test_a_settled_crossing_is_always_the_same_picture(stream, kind):
    samples = [stream(ONLY[kind], is_repeated=True)[i] for i in range(40)]
    pictures: dict[int, list[torch.Tensor]] = {}
    for sample in samples:
        if sample["crossing"] >= 0:
            pictures.setdefault(int(sample["crossing"]), []).append(sample["image"])
        else:
            assert not sample["mask"].all()  # another picture lies around the hole
    assert len(pictures) > 1 and max(map(len, pictures.values())) > 1
    assert all(torch.equal(one, same[0]) for same in pictures.values() for one in same)
    apart = [same[0] for same in pictures.values()]
    assert not any(torch.equal(one, other) for i, one in enumerate(apart) for other in apart[:i])
    assert all(stream(ONLY[kind])[i]["crossing"] == -1 for i in range(5))


def test_kinds_follow_their_shares(stream, monkeypatch):
    seen = Counter()

    def stub(kind):
        seen[kind] += 1
        return {"image": torch.zeros(3, 32, 32)}

    monkeypatch.setattr(SampleStream, "_photo", lambda self, index, rng: stub("photo"))
    monkeypatch.setattr(SampleStream, "_crossed", lambda self, kind, rng: stub(kind))
    samples = stream()
    for index in range(1500):
        samples[index]
    assert {kind: seen[kind] / 1500 for kind in seen} == pytest.approx(
        {"photo": 0.4, "composite": 0.4, "rendered": 0.2}, abs=0.04
    )


@pytest.mark.parametrize(
    "kind, nothing, one, dropped",
    [
        # 40 % of photographs keep nothing; one in five of the rest exactly one; the others drop each with 35 %
        ("photo", 0.4 + 0.48 * 0.35**3, 0.12 + 0.48 * 3 * 0.65 * 0.35**2, 0.4 + 0.12 * 2 / 3 + 0.48 * 0.35),
        # crossed pictures never drop all; one in five keeps exactly one; the others drop each with 8 %
        ("composite", 0, 0.2 + 0.8 * 3 * 0.92 * 0.08**2, 0.2 * 2 / 3 + 0.8 * (0.08 - 0.08**3)),
        ("rendered", 0, 0.2 + 0.8 * 3 * 0.92 * 0.08**2, 0.2 * 2 / 3 + 0.8 * (0.08 - 0.08**3)),
    ],
)
def test_references_are_dropped_at_the_documented_rates(kind, nothing, one, dropped):
    rng = np.random.default_rng(0)
    kept = np.stack([random_presence(rng, kind) for _ in range(40_000)])
    count = kept.sum(1)
    assert kept.dtype == bool and ((count == 0).mean() == 0 if nothing == 0 else True)
    assert (count == 0).mean() == pytest.approx(nothing, abs=0.015)
    assert (count == 1).mean() == pytest.approx(one, abs=0.015)
    np.testing.assert_allclose(1 - kept.mean(0), dropped, atol=0.015)
    assert len(np.unique(kept, axis=0)) == (8 if nothing else 7)


def test_captions_are_dropped_and_without_augmentation_nothing_is(stream, pictures):
    photos = stream(ONLY["photo"])
    assert np.mean([photos[i]["caption"] == "" for i in range(150)]) == pytest.approx(0.3, abs=0.12)
    plain = stream(ONLY["photo"], augment=False)
    for index in range(8):
        sample = plain[index]
        image = pictures.whole[pictures.captions.index(sample["caption"])]
        torch.testing.assert_close(sample["image"], image.float() / 127.5 - 1)
        assert sample["present"].all()


@pytest.mark.parametrize("whole", [0.2, 0.5])
def test_masks_are_binary_and_never_empty_and_some_of_them_are_full(whole):
    rng = np.random.default_rng(0)
    masks = torch.stack([random_mask(rng, 32, whole) for _ in range(1000)])
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    area = masks.mean((1, 2, 3))
    assert area.min() > 0 and (area == 1).float().mean() == pytest.approx(whole, abs=0.05)
    assert area[area < 1].std() > 0.1


def test_without_references_most_photographs_have_a_hole(stream):
    found = [stream(ONLY["photo"])[i] for i in range(50)]
    holes = {bool(kept): [] for kept in (0, 1)}
    for sample in found:
        is_given = sample["present"].any() and not sample["has_sketch"]  # context stands for no reference
        holes[bool(is_given)].append(not sample["mask"].all())
    assert np.mean(holes[False]) > 0.6 > np.mean(holes[True])


def test_an_edit_without_references_learns_from_what_surrounds_it(stream):
    """The views are those that the pipeline's own encoder has of the same edit, and do not tell what is in the hole."""
    samples, seen = stream(ONLY["photo"]), 0
    encoder = MGEncoder(sample_size=32, num_tiles=samples.num_tiles)
    for sample in (samples[i] for i in range(60)):
        if not sample["has_sketch"]:
            assert not sample["sketch"].any()
            continue
        seen += 1
        assert sample["present"].all() and not sample["mask"].all()
        image, hole = (sample["image"][None] + 1) / 2, sample["mask"][None]
        filled = grow_into(image, hole)
        torch.testing.assert_close(sample["sketch"], rgb_to_lab(filled)[0], atol=1e-3, rtol=0)
        context = encoder.encode_context(image, hole, ["color", "texture", "shape"], (32, 32))
        torch.testing.assert_close(sample["structure"], context["shape"][0]["structure"][0], atol=1e-3, rtol=0)
        torch.testing.assert_close(sample["sketch"], context["shape"][0]["sketch"][0], atol=1e-3, rtol=0)
        known = encoder.views(filled, 1 - hole, ["texture"])["texture"]
        torch.testing.assert_close(sample["normalized"], known["normalized"][0], atol=1e-3, rtol=0)
        torch.testing.assert_close(sample["contrast"], known["contrast"][0], atol=1e-3, rtol=0)
        assert sample["color_weights"].sum() == pytest.approx(1, abs=1e-4)
        assert sample["color_weights"].reshape(8, 8)[hole[0, 0, 1::4, 1::4] > 0].sum() < 1e-5
    assert seen > 5
    assert not any(stream(ONLY[kind])[i]["has_sketch"] for kind in ("composite", "rendered") for i in range(20))


@pytest.mark.parametrize("kind", ["composite", "rendered"])
def test_around_the_hole_of_a_crossed_picture_lies_a_photograph(kind, stream, pictures):
    photographs, seen = pictures.whole.float() / 127.5 - 1, 0
    for sample in (stream(ONLY[kind])[i] for i in range(20)):
        around = sample["mask"][0] == 0
        if around.sum() > 20:
            apart = (sample["image"] - photographs)[:, :, around].abs().amax((1, 2))
            assert apart.min() < 1e-5
            seen += 1
    assert seen > 3


def test_the_turn_of_a_photograph_makes_its_sketch_like_it(stream):
    apart = {"own": 0.0, "opposite": 0.0, "none": 0.0, "transposed": 0.0}
    for sample in (stream(ONLY["photo"], augment=False)[i] for i in range(8)):
        lab = rgb_to_lab((sample["image"][None] + 1) / 2)
        turn = sample["turn"][None]
        turns = {"own": turn, "opposite": -turn, "none": torch.eye(3)[None], "transposed": turn.transpose(1, 2)}
        for name, chosen in turns.items():
            sketch = lay_palette(turn_colors(sample["structure"][None], chosen), sample["points"][None])
            apart[name] += (sketch - lab).square().mean().item()
    assert apart["own"] < 0.9 * min(value for name, value in apart.items() if name != "own")


def test_the_shape_of_a_photograph_is_that_of_the_flipped_picture(stream, pictures):
    samples, flipped = stream(ONLY["photo"]), 0
    originals = torch.cat([pictures.whole, pictures.crop]).float() / 127.5 - 1
    for sample in [one for one in map(samples.__getitem__, range(16)) if not one["has_sketch"]][:12]:
        flipped += not (sample["image"] - originals).abs().amax((1, 2, 3)).min() < 1e-5
        smooth = edge_preserving_smooth(rgb_to_lab((sample["image"][None] + 1) / 2))
        found = shape_view(smooth, torch.ones(1, 1, 32, 32))
        assert (found["edges"][0] - sample["edges"]).abs().max() < 0.02
        assert (found["structure"][0] - sample["structure"]).abs().mean() < 0.02
    assert 0 < flipped < 12


@pytest.mark.parametrize("kind", ["composite", "rendered"])
def test_a_crossed_picture_is_its_base_and_its_references_are_those_of_the_base(kind, stream, pool):
    views, bases = pool
    smooth = dataclasses.replace(views, detail=torch.zeros_like(views.detail))  # leaves the base bare
    samples, seen = stream(ONLY[kind], views=smooth), set()
    for sample in map(samples.__getitem__, range(12)):
        candidates = torch.stack([add_texture(lab, torch.zeros(1, 32, 32)) for lab in bases[kind].lab.float()]) * 2 - 1
        both = {False: candidates, True: candidates.flip(-1)}
        apart = {
            flip: ((sample["image"] - pictures) * sample["mask"]).abs().amax((1, 2, 3))
            for flip, pictures in both.items()
        }
        flip = bool(apart[True].min() < apart[False].min())
        entry = int(apart[flip].argmin())
        assert apart[flip][entry] < 1e-5
        color, shape = int(bases[kind].color[entry]), int(bases[kind].shape[entry])
        assert torch.equal(sample["points"], views.points[color].float())
        assert torch.equal(sample["turn"], bases[kind].turn[entry])
        for name in ("edges", "structure"):
            expected = getattr(views, name)[shape].float()
            assert torch.equal(sample[name], expected.flip(-1) if flip else expected)
        seen.add(flip)
    assert seen == {False, True}


def test_a_rendered_crossing_has_the_palette_of_one_reference_and_the_regions_of_another():
    seeds, rgb = render_pictures(5, 32, seed=3)
    assert rgb.shape == (5, 3, 32, 32) and rgb.dtype == torch.uint8
    views, _ = compute_views(rgb)
    bases = cross_rendered(seeds, views.structure, views.points, seed=3)
    assert len(bases) == 5
    for lab, color, shape in zip(bases.lab, bases.color, bases.shape, strict=True):
        regions = render_regions(seeds[shape, 2], 64).reshape(32, 2, 32, 2).transpose(0, 2, 1, 3).reshape(32, 32, 4)
        whole = (regions == regions[..., :1]).all(-1)
        found, labels = lab.permute(1, 2, 0).numpy()[whole], regions[whole][:, 0]
        shown = render_palette(seeds[color, 0])[np.unique(render_regions(seeds[color, 2], 64))]
        apart = np.linalg.norm(found[:, None] - shown, axis=-1)
        assert apart.min(1).max() < 0.1, "a color that the reference does not show"
        chosen = [set(apart.argmin(1)[labels == label]) for label in np.unique(labels)]
        assert all(len(colors) == 1 for colors in chosen)
        assert len(set.union(*chosen)) >= min(2, len(shown), len(chosen))


def test_colors_are_assigned_to_regions_as_the_sketch_has_them():
    palette = np.array([[20.0, 0, 0], [50, 40, 0], [80, 0, 40]])
    regions = np.zeros((16, 16), int)
    regions[4:12, 4:12], regions[:, 14:] = 1, 3
    expected = palette[[2, 0, 0, 1]]
    noise = np.random.default_rng(0).normal(0, 15, (8, 8, 3))
    found = assign_colors(palette, regions, expected[regions[::2, ::2]] + noise)
    np.testing.assert_array_equal(found[[0, 1, 3]], expected[[0, 1, 3]])
    one = assign_colors(palette[:1], regions, noise)
    np.testing.assert_array_equal(one, np.repeat(palette[:1], 4, 0))


def test_a_photographic_crossing_has_the_colors_of_its_reference(pool):
    views, bases = pool
    for lab, color in zip(bases["composite"].lab.float(), bases["composite"].color, strict=True):
        made, wanted = lab.flatten(1).mean(1), views.points[color].float().mean(0)
        assert (made - wanted).abs().max() < 6


def test_the_pool_holds_pictures_parts_and_rendered_ones_in_this_order(pool, pictures):
    views, bases = pool
    count = len(pictures)
    assert torch.equal(views.rgb[:count], pictures.whole) and torch.equal(views.rgb[count : 2 * count], pictures.crop)
    assert len(views) == 2 * count + 4 and [len(bases[kind]) for kind in ("composite", "rendered")] == [6, 4]
    for kind, low, high in (("composite", 0, 2 * count), ("rendered", 2 * count, len(views))):
        for places in (bases[kind].color, bases[kind].shape):
            assert places.min() >= low and places.max() < high


def test_a_kind_without_a_pool_has_no_bases(pictures):
    views, bases = build_pool(pictures, num_crossings=0, num_rendered=0, seed=0)
    assert len(views) == 2 * len(pictures) and bases == {}
    photos = SampleStream(views, bases, pictures.captions, 4, 0, ONLY["photo"], TILES)
    assert photos[0]["image"].shape == (3, 32, 32)


def pools_equal(one, other):
    return (
        all(torch.equal(value, getattr(other[0], name)) for name, value in vars(one[0]).items())
        and one[1].keys() == other[1].keys()
        and all(
            torch.equal(value, getattr(other[1][kind], name))
            for kind, bases in one[1].items()
            for name, value in vars(bases).items()
        )
    )


def kept(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_the_cache_gives_back_what_was_computed(pictures, tmp_path, monkeypatch, capsys):
    arguments = {"num_crossings": 2, "num_rendered": 2, "seed": 0}
    made = build_pool(pictures, **arguments)
    told = capsys.readouterr().err
    assert f"Before the first step: {len(pictures)} pictures are prepared, and 2 crossed of them" in told
    assert "2 pictures are rendered" in told and "without --cache_dir" in told
    assert pools_equal(build_pool(pictures, **arguments, cache_dir=str(tmp_path)), made)
    assert capsys.readouterr().err.count(f"kept in {str(tmp_path)!r} for the next run") == 2
    assert sorted(name.partition("-")[0] for name in kept(tmp_path)) == ["pool", "rendered"]
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors"}
    monkeypatch.setattr("mg_diffusion.training.view_pool.compute_views", None)
    assert pools_equal(build_pool(pictures, **arguments, cache_dir=str(tmp_path)), made)
    assert "Before the first step" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "changed, files",
    [
        ({}, 0),
        ({"num_crossings": 3}, 1),
        ({"num_rendered": 3}, 1),
        ({"seed": 1}, 2),
        ({"is_turned": False}, 2),
        ("whole", 1),
        ("crop", 1),
        ("size", 2),
        ("code", 2),
        ("version", 2),
    ],
)
def test_other_settings_pictures_and_code_are_kept_apart(pictures, tmp_path, monkeypatch, changed, files):
    arguments = {"num_crossings": 2, "num_rendered": 2, "seed": 0, "cache_dir": str(tmp_path)}
    build_pool(pictures, **arguments)
    if changed in ("whole", "crop"):
        pictures = dataclasses.replace(pictures, **{changed: getattr(pictures, changed).flip(-1)})
    elif changed == "size":
        enlarged = {name: getattr(pictures, name).repeat(1, 1, 2, 2) for name in ("whole", "crop")}
        pictures = dataclasses.replace(pictures, **enlarged)
    elif changed == "code":  # a comment in a file that the views are made with
        changed_file = tmp_path.with_suffix(".py")
        changed_file.write_text(Path(renderer.__file__).read_text(encoding="utf-8") + "# other\n", encoding="utf-8")
        monkeypatch.setattr(renderer, "__file__", str(changed_file))
    elif changed == "version":
        monkeypatch.setattr(diffusers, "__version__", "0.0")
    else:
        arguments |= changed
    build_pool(pictures, **arguments)
    assert len(kept(tmp_path)) == 2 + files


def test_of_a_window_only_what_is_rendered_is_kept(pictures, tmp_path):
    build_pool(pictures, 2, 2, 0, str(tmp_path), is_window=True)
    assert [name.partition("-")[0] for name in kept(tmp_path)] == ["rendered"]


@pytest.mark.parametrize("damage", ["cut off", "empty", "no tensors"])
def test_a_damaged_file_of_the_cache_is_made_anew(pictures, tmp_path, damage):
    made = build_pool(pictures, 2, 0, 0)
    build_pool(pictures, 2, 0, 0, str(tmp_path))
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    path.write_bytes({"cut off": content[:-1], "empty": b"", "no tensors": b"<html>" + content}[damage])
    with pytest.warns(UserWarning, match=f"{path.name}' is damaged .* and is made anew"):
        assert pools_equal(build_pool(pictures, 2, 0, 0, str(tmp_path)), made)
    assert path.read_bytes() == content


def test_an_interrupted_store_leaves_nothing(pictures, tmp_path, monkeypatch):
    def interrupted(tensors, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("mg_diffusion.training.caching.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_pool(pictures, 2, 2, 0, str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_two_that_store_at_once_do_not_disturb_each_other(tmp_path):
    def make():
        inner = cached(tmp_path, "x", ["same"], lambda: {"x": torch.ones(3)})  # comes first
        return {"x": inner["x"] * 1}

    assert torch.equal(cached(tmp_path, "x", ["same"], make)["x"], torch.ones(3))
    assert len(list(tmp_path.iterdir())) == 1


def test_views_of_a_batch_are_what_the_encoder_reads(stream):
    samples = [stream()[i] for i in range(3)]
    batch = default_collate([{key: value for key, value in sample.items() if key != "caption"} for sample in samples])
    encoder = MGEncoder(sample_size=32, color_channels=8, texture_channels=8)
    features = encoder(views_of(batch))
    assert {name: tuple(entry["vector"].shape) for name, (entry,) in features.items()} == {
        name: (3, size) for name, size in encoder.vector_sizes.items()
    }
    fresh = encoder.views((batch["image"] + 1) / 2)
    assert {name: set(view) for name, view in fresh.items()} == {n: set(v) for n, v in views_of(batch).items()}
