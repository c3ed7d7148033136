"""Octaves: what is absent, what is known, and the sizes that a detail network paints."""

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DModel

from mg_diffusion.encoder.views import gaussian_blur
from mg_diffusion.octaves import (
    CANVAS_GAIN,
    LEAST_LAID,
    MOST_LAID,
    build_detail_unet,
    build_scheduler,
    compose,
    condition,
    paint_octave,
    paint_octaves,
    predict_cells,
    room_for,
    to_cells,
    to_picture,
)


@pytest.fixture(scope="module")
def unet() -> UNet2DModel:
    """A network that does something: its last layer is not zero."""
    torch.manual_seed(0)
    unet = build_detail_unet((16, 16)).eval()
    torch.nn.init.normal_(unet.conv_out.weight, std=0.1)
    return unet


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def paint(unet: UNet2DModel, canvas_scale=1.0, sketch_scale=1.0, size=(16, 16), factor=4, **maps) -> torch.Tensor:
    larger = [factor * side for side in size]
    given = {
        "smaller": torch.rand(1, 3, *size, generator=generator()) - 0.5,
        "canvas": torch.rand(1, 1, *larger, generator=generator()),
        "sketch": torch.rand(1, 3, *larger, generator=generator()) - 0.5,
    }
    scales = {"canvas_scale": canvas_scale, "sketch_scale": sketch_scale}
    return paint_octaves(
        unet, build_scheduler(), **{**given, **maps}, **scales, num_inference_steps=2, generator=generator()
    )


def test_cells_lose_nothing():
    picture = torch.rand(2, 3, 8, 12)
    assert torch.allclose(to_picture(to_cells(picture)), picture, atol=1e-6)


def test_a_new_network_enlarges():
    smaller = torch.rand(1, 3, 8, 8) - 0.5
    painted = paint_octave(
        build_detail_unet((16, 16)),
        build_scheduler(),
        condition(
            smaller,
            torch.zeros(1, 1, 16, 16),
            torch.ones(1, 1, 1, 1),
            torch.zeros(1, 3, 16, 16),
            torch.ones(1, 1, 1, 1),
        ),
        level=0.1,
    )
    assert torch.allclose(painted, smaller.repeat_interleave(2, 2).repeat_interleave(2, 3), atol=1e-5)


@pytest.mark.parametrize("name, channels", [("canvas", 1), ("sketch", 3)])
def test_at_strength_0_it_is_exactly_absent(unet, name, channels):
    other = torch.rand(1, channels, 64, 64, generator=torch.Generator().manual_seed(1))
    absent = paint(unet, **{f"{name}_scale": 0.0})
    assert torch.equal(absent, paint(unet, **{name: other, f"{name}_scale": 0.0}))
    assert torch.equal(absent, paint(unet, **{f"{name}_scale": torch.zeros(1, 1, 64, 64)}))
    assert not torch.equal(absent, paint(unet)) and not torch.equal(paint(unet), paint(unet, **{name: other}))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    torch.manual_seed(0)
    half = build_detail_unet((16, 16)).eval().to(dtype)
    maps = {"canvas": torch.rand(1, 1, 32, 32), "sketch": torch.rand(1, 3, 32, 32) - 0.5}
    maps = {name: one.to(dtype) for name, one in maps.items()}
    made = paint(half, size=(8, 8), smaller=torch.zeros(1, 3, 8, 8, dtype=dtype), **maps)
    assert made.dtype == dtype and made.isfinite().all()


def test_the_level_of_the_smaller_picture_is_read(unet):
    noisy, conditions = torch.zeros(1, 12, 8, 8), torch.zeros(1, 34, 8, 8)
    timestep = torch.tensor([500])
    one, other = (predict_cells(unet, noisy, timestep, conditions, torch.tensor([level])) for level in (0.0, 0.3))
    assert not torch.equal(one, other)


def test_each_picture_is_trusted_by_the_strength_of_its_own_sketch(unet):
    size, strengths = (8, 8), torch.tensor([0.0, 1.0])
    smaller = torch.rand(1, 3, *size, generator=generator()) - 0.5
    maps = {"canvas": torch.zeros(1, 1, 16, 16), "sketch": torch.zeros(1, 3, 16, 16)}

    def painted(smaller, canvas, sketch, scale, seeds):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        options = {"num_inference_steps": 2, "generator": generators}
        return paint_octaves(unet, build_scheduler(), smaller, canvas, sketch, sketch_scale=scale, **options)

    both = painted(*(x.expand(2, -1, -1, -1) for x in (smaller, *maps.values())), strengths.view(2, 1, 1, 1), [0, 0])
    for one, strength in zip(both, strengths, strict=True):
        alone = painted(smaller, *maps.values(), strength, [0])
        assert torch.allclose(one, alone[0], atol=1e-5)
    # With a sketch of nothing but gray its strength is all that differs.
    assert not torch.allclose(both[0], both[1], atol=1e-3)


def test_what_is_known_around_a_hole_stays(unet):
    picture, hole = torch.rand(1, 3, 32, 32) * 2 - 1, torch.zeros(1, 1, 16, 16)
    hole[..., 4:9, 5:12] = 1
    one = torch.ones(1, 1, 1, 1)
    smaller = torch.nn.functional.avg_pool2d(picture, 2)
    given = condition(smaller, torch.zeros(1, 1, 32, 32), one, picture, one, hole, to_cells(picture))
    painted = paint_octave(unet, build_scheduler(), given, level=0.1, num_inference_steps=2, generator=generator())
    known = torch.nn.functional.interpolate(1 - hole, scale_factor=2).expand_as(picture) > 0
    assert torch.allclose(painted[known], picture[known], atol=1e-5)
    assert not torch.allclose(painted[~known], picture[~known], atol=0.1)


def absent_maps(size: int) -> dict[str, torch.Tensor]:
    """Canvas and sketch of nothing."""
    return {"canvas": torch.zeros(1, 1, size, size), "sketch": torch.zeros(1, 3, size, size)}


def test_a_composition_is_canvas_over_sketch_over_what_is_smaller():
    one, none, maps = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), absent_maps(16)
    smaller, sketch = torch.full((1, 3, 8, 8), -0.5), torch.full((1, 3, 16, 16), 0.2)
    for scale, shown in ((one, sketch), (none, torch.full_like(sketch, -0.5))):
        found = compose(smaller, maps["canvas"], none, sketch, scale)
        torch.testing.assert_close(found, shown, atol=1e-3, rtol=0)
    canvas = torch.zeros(1, 1, 16, 16)
    canvas[..., 3:6] = 1
    lighter = compose(smaller, canvas, one, sketch, one) - sketch
    assert (lighter[..., 3:6] > 0.1).all() and lighter[..., 8:].abs().max() < 1e-3


def grain(height: int = 64, width: int = 64) -> torch.Tensor:
    """A texture of 10 levels of lightness, as strong everywhere."""
    return 10 * torch.where(torch.rand(1, 1, height, width, generator=generator()) > 0.5, 1.0, -1.0)


def test_a_texture_over_an_even_sketch_stays_as_it_is():
    whole, texture = torch.ones(1, 1, 64, 64), grain()
    assert torch.equal(room_for(texture, whole, torch.full((1, 1, 64, 64), 50.0)), whole)


def test_a_texture_is_weaker_beside_edges_and_stronger_elsewhere():
    lightness = torch.full((1, 1, 64, 64), 20.0)
    lightness[..., 32:] = 80.0
    texture, whole = grain(), torch.ones(1, 1, 64, 64)
    factor = room_for(texture, whole, lightness)
    assert torch.allclose(factor[..., 31:33] / factor.max(), torch.tensor(LEAST_LAID), atol=0.02)
    assert 1 < float(factor[..., :16].min()) <= float(factor.max()) <= MOST_LAID
    assert torch.allclose((factor**2).mean(), torch.tensor(1.0), atol=1e-3)  # what is taken there is laid elsewhere
    assert torch.allclose(room_for(texture.flip(3), whole, lightness.flip(3)).flip(3), factor, atol=1e-5)


def test_how_a_texture_yields_is_told_by_where_it_is():
    lightness = torch.full((1, 1, 64, 64), 50.0) + 30 * (torch.arange(64) // 4 % 2)
    texture, left = grain(), torch.zeros(1, 1, 64, 64)
    left[..., :32] = 1
    lightness[..., :32] = 50.0  # stripes are where no texture is
    assert torch.allclose(room_for(texture, left, lightness)[..., :24], torch.tensor(1.0), atol=0.05)
    pair = room_for(texture, torch.cat([left, 1 - left]), lightness)
    assert torch.allclose(pair[:1], room_for(texture, left, lightness), atol=1e-5)
    assert not torch.allclose(pair[1:], pair[:1], atol=0.05)


@pytest.mark.parametrize("strength", [0.0, 0.1, 0.5, 1.0, 1.5])
def test_a_stronger_texture_is_never_weaker(strength):
    lightness = 50 + 20 * F.interpolate(torch.randn(1, 1, 8, 8, generator=generator()), 64, mode="bicubic")
    laid = [
        (one * room_for(grain(), torch.full((1, 1, 64, 64), one), lightness)).mean()
        for one in (strength, strength + 0.1)
    ]
    assert laid[0] < laid[1]


def test_a_new_network_keeps_the_composition_it_begins_with_only_where_it_is_told():
    """What is begun from noise forgets it; the network adds nothing to the smaller picture."""
    share = torch.zeros(1, 1, 16, 16)
    share[..., :8] = 2 / 3
    seen = []

    class Watched(torch.nn.Module):
        config = build_detail_unet((16, 16)).config

        def forward(self, cells, timestep, class_labels):
            seen.append(cells[:, :12])
            return type("Output", (), {"sample": torch.zeros_like(cells[:, :12])})

    one = torch.ones(1, 1, 1, 1)
    given = condition(torch.zeros(1, 3, 16, 16), torch.zeros(1, 1, 32, 32), one, torch.zeros(1, 3, 32, 32), one)
    white = torch.ones(1, 3, 32, 32)
    paint_octave(Watched(), build_scheduler(), given, 0.1, 6, generator(), (white, share))
    assert len(seen) == 6 and not torch.equal(seen[4][..., :8], seen[4][..., 8:])
    assert seen[4][:, :3, :, :8].mean() > 1.4 and abs(seen[4][:, :3, :, 8:].mean()) < 0.2  # 2 is white without noise
    seen.clear()
    paint_octave(Watched(), build_scheduler(), given, 0.1, 6, generator(), (white, 2 / 3))
    assert len(seen) == 2 and seen[0][:, :3].mean() > 1.4


def test_a_share_of_0_begins_with_noise_bit_for_bit(unet):
    one, maps = torch.ones(1, 1, 1, 1), absent_maps(32)
    given = condition(torch.rand(1, 3, 16, 16, generator=generator()), maps["canvas"], one, maps["sketch"], one)
    plain = paint_octave(unet, build_scheduler(), given, 0.1, 4, generator())
    begun = paint_octave(unet, build_scheduler(), given, 0.1, 4, generator(), (torch.ones(1, 3, 32, 32), 0.0))
    assert torch.equal(plain, begun)


@pytest.mark.parametrize("size, factor", [((8, 8), 1), ((8, 8), 2), ((12, 20), 8)])
def test_octaves_reach_the_size_of_canvas_and_sketch(unet, size, factor):
    painted = paint(unet, size=size, factor=factor)
    assert painted.shape == (1, 3, factor * size[0], factor * size[1]) and painted.abs().max() <= 1


def test_sizes_that_do_not_fit_are_refused(unet):
    with pytest.raises(ValueError, match="multiples of 4 pixels, got 30 x 32"):
        paint(unet, size=(15, 16), factor=2)
    with pytest.raises(ValueError, match="1, 2, 4, 8"):
        paint(unet, factor=3)
    with pytest.raises(ValueError, match="1, 2, 4, 8"):
        paint(unet, sketch=torch.zeros(1, 3, 64, 64), canvas=torch.zeros(1, 1, 64, 32))


def octave(smaller: torch.Tensor | None = None, **options) -> tuple[torch.Tensor, torch.Tensor]:
    """What a network that adds nothing paints of a sketch, and the sketch."""
    generator = torch.Generator().manual_seed(0)
    sketch = torch.rand(1, 3, 32, 32, generator=generator, dtype=torch.float32) * 2 - 1
    smaller = torch.zeros(1, 3, 16, 16) if smaller is None else smaller
    given = (smaller, torch.zeros(1, 1, 32, 32), sketch)
    unet = build_detail_unet((16, 32), sample_size=16).eval()
    options = {"generator": torch.Generator().manual_seed(1), "num_inference_steps": 2, **options}
    return paint_octaves(unet, build_scheduler(), *given, **options), sketch


def likeness(one: torch.Tensor, other: torch.Tensor) -> float:
    return torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1].item()


def test_under_a_whole_sketch_all_but_the_finest_grain_is_the_composition():
    made, sketch = octave()
    assert likeness(gaussian_blur(made, 1.0), gaussian_blur(sketch, 1.0)) > 0.97
    assert likeness(made, sketch) > 0.7
    assert not octave(sketch_scale=0.0)[0].any()


def test_what_is_kept_of_a_picture_no_composition_replaces():
    photo = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(5), dtype=torch.float32) * 2 - 1
    known = (photo, torch.ones(1, 1, 32, 32))
    coarse = gaussian_blur(photo, 1.5)

    def kept(share: float) -> float:
        made = octave(F.avg_pool2d(photo, 2), known=known, kept=share)[0]
        return likeness(gaussian_blur(made, 1.5), coarse)

    assert kept(0.9) > 0.7 > 0.3 > kept(0.0)


def test_a_canvas_is_told_stronger_only_where_no_composition_lays_it(monkeypatch):
    told = []
    monkeypatch.setattr(
        "mg_diffusion.octaves.condition",
        lambda *given, **options: told.append(given[2]) or condition(*given, **options),
    )
    for scale in (0.0, 0.5, 1.0):
        octave(canvas_scale=1.0, sketch_scale=scale)
    least = LEAST_LAID * MOST_LAID  # a sketch of noise leaves no room
    assert [one.mean().item() for one in told] == pytest.approx([CANVAS_GAIN, (CANVAS_GAIN + least) / 2, least])
