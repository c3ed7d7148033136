"""Less noise, sharper, larger: what the shipped detail network restores, at any size."""

import io

import numpy as np
import PIL.Image
import pytest
import torch

from demo.references import reference
from mg_diffusion import MGPipeline, edits
from mg_diffusion.cli import main
from mg_diffusion.loading import load_pipeline
from mg_diffusion.noise_level import estimate_noise, has_blocks
from mg_diffusion.octaves import build_detail_unet, to_cells
from mg_diffusion.restoring import (
    OVERLAP,
    TILE,
    _starts,
    details_of,
    enlarge,
    faulty_condition,
    restore,
    restored_cells,
)


PHOTOS = ("coffee", "cat", "rocket", "astronaut")


@pytest.fixture(scope="module")
def pipe(repository):
    pipeline = load_pipeline(MGPipeline, str(repository / "hub_cards" / "mg-bazaar"))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def unet(pipe):
    return pipe.mg_detail.float()


def photo(name: str, side: int = 256) -> np.ndarray:
    return np.asarray(reference(name).convert("RGB").resize((side, side), PIL.Image.Resampling.LANCZOS))


def noisy(picture: np.ndarray, level: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, level, picture.shape)
    return (picture + noise).round().clip(0, 255).astype(np.uint8)


def decibels(picture: np.ndarray, truth: np.ndarray) -> float:
    return -10 * np.log10(((picture.astype(float) - truth) ** 2).mean() / 255**2)


@pytest.mark.parametrize(("level", "gain"), [(15, 4), (25, 6), (50, 8)])
def test_noise_goes_whether_its_level_is_told_or_estimated(unet, level, gain):
    for told in (level, None):
        gains = []
        for name in PHOTOS:
            truth = photo(name)
            given = noisy(truth, level)
            gains.append(decibels(restore(unet, given, told), truth) - decibels(given, truth))
        assert np.mean(gains) > gain


def test_blocks_of_jpeg_go(unet):
    gains = []
    for name in PHOTOS:
        truth, file = photo(name), io.BytesIO()
        PIL.Image.fromarray(truth).save(file, "JPEG", quality=15)
        given = np.asarray(PIL.Image.open(file))
        gains.append(decibels(restore(unet, given, 0), truth) - decibels(given, truth))
    assert np.mean(gains) > 0.2 and min(gains) > 0


@pytest.mark.parametrize("factor", [2, 4])
def test_enlarged_is_nearer_to_the_truth_and_as_sharp(pipe, factor):
    gains, sharper = [], []
    for name in PHOTOS:
        truth = PIL.Image.fromarray(photo(name))
        small = truth.resize((256 // factor,) * 2, PIL.Image.Resampling.BICUBIC)
        bicubic = np.asarray(small.resize((256, 256), PIL.Image.Resampling.BICUBIC))
        (made,) = edits.enlarge(pipe, small, factor)
        gains.append(decibels(np.asarray(made), truth) - decibels(bicubic, truth))
        steps = [np.abs(np.diff(np.asarray(one, float), axis=0)).mean() for one in (bicubic, made, truth)]
        sharper.append(abs(steps[1] - steps[2]) < abs(steps[0] - steps[2]))
    assert np.mean(gains) > 0.4 and all(sharper)


def test_a_clean_picture_stays_nearly_what_it_is(unet):
    assert np.mean([decibels(restore(unet, photo(name), 0), photo(name)) for name in PHOTOS]) > 33


@pytest.mark.parametrize("level", [0, 5, 20, 50])
def test_noise_is_estimated(level):
    flat = np.full((128, 128, 3), 128.0)
    assert estimate_noise(noisy(flat, level)) == pytest.approx(level, abs=1)


@pytest.mark.parametrize("level", [10, 25])
def test_noise_is_told_from_texture(level):
    """In a photograph the finest details are not only noise."""
    for name in PHOTOS:
        assert estimate_noise(noisy(photo(name), level)) == pytest.approx(level, rel=0.12)


def test_noise_that_was_compressed_is_seen_by_its_details():
    file = io.BytesIO()
    PIL.Image.fromarray(noisy(photo("coffee"), 25)).save(file, "JPEG", quality=90)
    assert 10 < estimate_noise(np.asarray(PIL.Image.open(file))) < 25


def test_what_cannot_be_seen_has_no_noise():
    hidden = noisy(photo("coffee"), 40)
    visible = np.zeros(hidden.shape[:2], bool)
    assert estimate_noise(hidden, visible) == 0.0
    visible[:, :128] = True
    hidden[:, :128] = noisy(photo("coffee"), 10)[:, :128]
    assert estimate_noise(hidden, visible) == pytest.approx(10, rel=0.2)


def jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    PIL.Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(PIL.Image.open(file))


@pytest.mark.parametrize("name", PHOTOS)
def test_blocks_of_jpeg_are_seen_wherever_their_grid_lies(name):
    picture = photo(name)
    blocky = jpeg(picture, 40)
    for one in (blocky, blocky[3:, 5:], blocky.astype(np.uint16) * 257):
        assert has_blocks(one)
    for one in (picture, noisy(picture, 15), jpeg(picture, 95)):
        assert not has_blocks(one)


@pytest.mark.parametrize("times", [2, 4, 8, 16])
def test_enlarged_pixels_and_tables_are_no_blocks_of_jpeg(times):
    assert not has_blocks(photo("coffee", 64).repeat(times, 0).repeat(times, 1))
    table = np.full((400, 400, 3), 255, np.uint8)
    table[:: 5 * times] = table[:, :: 5 * times] = 0
    assert not has_blocks(table)


@pytest.mark.parametrize("side", [4, 16, 32, 48, 64])
def test_small_pictures_have_too_few_blocks_to_tell(side):
    for name in PHOTOS:
        assert not has_blocks(photo(name, side)) and not has_blocks(noisy(photo(name, side), 20))


def test_blocks_that_cannot_be_seen_do_not_count():
    half = photo("coffee", 512).copy()
    visible = np.zeros(half.shape[:2], bool)
    visible[:, :256] = True
    half[:, 256:] = jpeg(half, 20)[:, 256:]
    assert has_blocks(half) and not has_blocks(half, visible) and not has_blocks(half, np.zeros_like(visible))


def test_blocks_go_without_being_asked_for(pipe):
    """Taken for a little noise, traces of compression kept half of them."""
    for name in PHOTOS:
        truth = photo(name)
        blocky = jpeg(truth, 40)
        (made,) = edits.denoise(pipe, PIL.Image.fromarray(blocky))
        assert decibels(np.asarray(made), truth) > decibels(blocky, truth) + 0.3
        assert np.array_equal(made, edits.denoise(pipe, PIL.Image.fromarray(blocky), noise_level=0)[0])


def test_the_command_line_says_what_it_takes_a_picture_for(repository, tmp_path, capsys):
    flags = ["--model", str(repository / "hub_cards" / "mg-bazaar")]
    PIL.Image.fromarray(jpeg(photo("cat"), 30)).save(tmp_path / "blocky.png")
    PIL.Image.fromarray(noisy(photo("cat"), 20)).save(tmp_path / "noisy.png")
    for name, said in (("blocky", "blocks of JPEG show"), ("noisy", "the noise is estimated at")):
        source = str(tmp_path / f"{name}.png")
        assert main(["denoise", source, *flags, "-o", str(tmp_path / f"{name}-clean.png")]) == 0
        assert said in capsys.readouterr().err
        assert main(["denoise", source, *flags, "--noise-level", "5", "-o", str(tmp_path / f"{name}-told.png")]) == 0
        assert "estimated" not in capsys.readouterr().err


def test_enhance_does_not_sharpen_blocks(pipe):
    blocky = jpeg(photo("cat"), 30)
    shares = []
    (made,) = edits.enhance(pipe, PIL.Image.fromarray(blocky), callback=shares.append)
    across = [np.abs(np.diff(np.asarray(one, float).mean(2), axis=1)) for one in (blocky, made)]
    before, after = (one[:, 7::8].mean() / np.delete(one, np.s_[7::8], 1).mean() for one in across)
    assert after - 1 < (before - 1) / 2
    assert shares == sorted(shares) and shares[-1] == 1


def test_noise_leaves_no_weave_of_the_cells(unet):
    """Differences beside each other are alike at even and odd places."""
    flat = restore(unet, noisy(np.full((128, 128, 3), 128.0), 25), 25.0).astype(float)
    inside, across = (np.abs(np.diff(flat, axis=1))[:, start::2].mean() for start in (0, 1))
    assert inside / across == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("size", [(16, 16), (17, 65), (300, 40), (TILE + 1, 24)])
def test_any_size(unet, size):
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    assert restore(unet, picture).shape == picture.shape
    assert enlarge(unet, picture).shape == (2 * size[0], 2 * size[1], 3)


def test_tiles_cover_a_side_and_overlap():
    for side in (TILE - 8, TILE, TILE + 8, 3 * TILE, 4008):  # padded to what the network halves
        starts = _starts(side, TILE)
        assert starts[0] == 0 and starts[-1] + TILE >= side
        assert all(0 < after - before <= TILE - OVERLAP + 2 for before, after in zip(starts, starts[1:], strict=False))


def test_no_seam_shows_where_tiles_meet(unet):
    clean = photo("coffee", TILE + 200)
    restored = restore(unet, noisy(clean, 20), 20)
    steps, true = (np.abs(np.diff(one.astype(float), axis=1)).mean((0, 2)) for one in (restored, clean))
    places = [start + offset for start in _starts(TILE + 200, TILE) for offset in (0, OVERLAP, TILE - OVERLAP)]
    # An edge of the picture may lie there, too.
    assert max(steps[place] - true[place] for place in places if 0 < place < len(steps)) < 0.5 * np.median(steps)


def test_a_network_that_adds_nothing_leaves_the_picture():
    unet = build_detail_unet((16, 32)).eval()
    picture = torch.rand(2, 3, 16, 24) * 2 - 1
    conditions = faulty_condition(picture, torch.zeros(2, 1, 1, 1))
    torch.testing.assert_close(restored_cells(unet, conditions, torch.zeros(2)), to_cells(picture))
    assert not details_of(torch.cat([conditions[:, :20], conditions[:, 20:21].abs(), conditions[:, 21:]], 1)).any()
    given = photo("cat", 64)
    assert np.array_equal(restore(unet, given, 10.0), given)


# -- as edits -------------------------------------------------------------------------------------------------------------
def test_strength_0_is_the_picture_and_half_is_between(pipe):
    given = PIL.Image.fromarray(noisy(photo("cat", 128), 25))
    for edit in (edits.denoise, edits.enhance):
        none, half, whole = (np.asarray(edit(pipe, given, strength=share)[0], float) for share in (0.0, 0.5, 1.0))
        assert np.array_equal(none, np.asarray(given))
        first, second = (np.abs(one - np.asarray(given)).mean() for one in (half, whole))
        assert 0 < first < second
    (plain,) = edits.enlarge(pipe, given, strength=0.0)
    assert np.array_equal(plain, given.resize((256, 256), PIL.Image.Resampling.BICUBIC))


def test_enhance_sharpens_and_tones(pipe):
    truth = PIL.Image.fromarray(photo("astronaut", 192))
    soft = truth.resize((96, 96), PIL.Image.Resampling.LANCZOS).resize((192, 192), PIL.Image.Resampling.BICUBIC)
    (made,) = edits.enhance(pipe, soft)
    steps = [np.abs(np.diff(np.asarray(one, float), axis=0)).mean() for one in (soft, made)]
    assert steps[1] > 1.05 * steps[0]
    (toned,) = edits.enhance(pipe, soft, ["#204080", "#88aaff"])
    before, after = (np.asarray(one, float).mean((0, 1)) for one in (made, toned))
    assert after[2] - after[0] > before[2] - before[0] + 10


def test_enhance_leaves_no_halo_beside_a_sharp_edge_and_no_grain_in_a_plain_ground(pipe):
    levels = np.full((96, 96, 3), 170.0)
    levels[:, 40:56] = 30
    picture = (levels + np.random.default_rng(0).normal(0, 2, levels.shape)).round().clip(0, 255).astype(np.uint8)
    (made,), unlimited = edits.enhance(pipe, picture), restore(pipe.mg_detail, picture, 4.0, 0.8)
    halo, before = (one[8:-8].mean((0, 2)).max() - 170 for one in (made, unlimited))
    assert halo < 15 and halo < 0.4 * before
    assert made[8:-8, :32].std() < 0.7 * picture[8:-8, :32].std()


def test_a_texture_reference_gives_the_larger_picture_grain(pipe):
    small = PIL.Image.fromarray(photo("rocket", 96))
    (plain,), (grained,) = (edits.enlarge(pipe, small, 2, texture) for texture in (None, reference("gravel")))
    steps = [np.abs(np.diff(np.asarray(one, float), axis=0)).mean() for one in (plain, grained)]
    assert grained.size == (192, 192) and steps[1] > 1.2 * steps[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda pipe, image: edits.denoise(pipe, image, strength=1.5),
            "`strength` must be a number from 0 .off. to 1",
        ),
        (lambda pipe, image: edits.denoise(pipe, image, noise_level=-1), "`noise_level` must be a number from 0"),
        (lambda pipe, image: edits.enhance(pipe, image, noise_level=300), "from 0 .off. to 60, got 300"),
        (lambda pipe, image: edits.enhance(pipe, image, strength=True), "`strength` must be a number"),
        (lambda pipe, image: edits.enlarge(pipe, image, 3), "`factor` must be 2 or 4, got 3"),
        (lambda pipe, image: edits.enlarge(pipe, image, True), "`factor` must be 2 or 4, got True"),
        (
            lambda pipe, image: edits.enlarge(pipe, image.resize((9000, 9000)), 2),
            "do not fit into memory.*crop the picture",
        ),
        (lambda pipe, image: edits.denoise(pipe, image.resize((8, 8))), "at least 16 x 16 pixels"),
        (lambda pipe, image: edits.denoise(pipe, image, generator=1), "`generator` must be"),
    ],
)
def test_what_cannot_be_is_refused(pipe, call, message):
    with pytest.raises(ValueError, match=message):
        call(pipe, PIL.Image.fromarray(photo("cat", 64)))


def test_a_pipeline_without_a_detail_network_says_so(shipped):
    with pytest.raises(ValueError, match="`enlarge` needs a detail network; this pipeline has no `mg_detail`"):
        edits.enlarge(shipped, PIL.Image.fromarray(photo("cat", 64)))


def test_progress_rises_to_1_and_can_stop(pipe):
    image, shares = PIL.Image.fromarray(photo("cat", 64)), []
    edits.enlarge(pipe, image, 4, callback=shares.append)
    assert shares == [0.5, 1.0]

    def stop(share: float) -> None:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        edits.denoise(pipe, image, callback=stop)
