"""Octaves: a picture of twice the size from a smaller one, its sketch and its texture canvas, by one small network.

The network is a stock `UNet2DModel` without attention. It predicts the Haar cells of the larger picture (x0), told how
far the smaller one is to be trusted (conditioning augmentation of cascaded diffusion, Ho et al., arXiv 2106.15282). It is
convolutional and knows nothing of the size it works at, so that the same weights serve every octave.

Where there is a sketch, an octave begins late, with the composition of canvas and sketch under the noise of that step (SDEdit,
Meng et al., arXiv 2108.01073; by place as Differential Diffusion, Levin and Fried, arXiv 2306.00950).

There, the composition keeps all but the finest grain, in which its pixels are stairs and a weave: the network need not find
again what is known.

Each of canvas and sketch comes with a map of strengths; where that is 0 its pixels are 0, and so it is exactly absent.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DModel
from diffusers.utils.torch_utils import randn_tensor
from torch.func import functional_call

from .encoder.views import DETAIL_UNIT, gaussian_blur, lab_to_rgb, rgb_to_lab, without_autocast


DETAIL_GAIN = 4.0  # Haar details of photographs then deviate about as much as noise does in the middle of the schedule
HAAR_CHANNELS = 12
CONDITION_CHANNELS = {
    "smaller": 3,
    "canvas": 4,
    "canvas_scale": 1,
    "sketch": 12,
    "sketch_scale": 1,
    "hole": 1,
    "known": 12,
}
LEVEL_STEPS = 1000  # the level of the smaller picture's noise is embedded as a timestep is
STEPS = 6  # of an octave
LEVELS = (0.1, 0.05)  # how much there is to mend in what the base painted, and in what this network did
SKETCHED_LEVEL = 0.4  # of what the base painted under a whole sketch, whose colors are truer than the base's
COMPOSED = 2 / 3  # of an octave's steps that a whole sketch spares: the composition stands for what they would paint
PINNED_SIGMA = 0.7  # pixels; what varies more slowly is the composition's, and the finest grain the network's
AROUND = 1 / 40  # of the shorter side, the deviation of what lies around a place
LEAST_LAID = 0.5  # of a texture where the sketch has as much detail of its own
MOST_LAID = 1.3  # of it elsewhere, at most, in return
CANVAS_GAIN = 1.3  # the network lays textures weaker than it is told; it has learned from up to this


def bands(like: torch.Tensor) -> torch.Tensor:
    """Averages and details of 2 x 2 pixels, as rows (4, 4) of an orthogonal matrix."""
    signs = [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]
    return (
        torch.tensor(signs, dtype=torch.float32).to(like)
        / 2
        * torch.tensor([1.0, *3 * [DETAIL_GAIN]], dtype=torch.float32).to(like)[:, None]
    )


def to_cells(picture: torch.Tensor) -> torch.Tensor:
    """Pictures (B, 3, H, W) in [-1, 1] to Haar cells (B, 12, H/2, W/2), as `AutoencoderHaar` orders them."""
    pixels = F.pixel_unshuffle(picture, 2).unflatten(1, (3, 4))
    return torch.einsum("bckhw,nk->bnchw", pixels, bands(picture)).flatten(1, 2)


def to_picture(cells: torch.Tensor) -> torch.Tensor:
    """The inverse of `to_cells`, not clamped."""
    pixels = torch.einsum(
        "bnchw,nk->bckhw", cells.unflatten(1, (4, 3)), torch.linalg.inv(bands(cells).float()).T.to(cells)
    )
    return F.pixel_shuffle(pixels.flatten(1, 2), 2)


def build_scheduler() -> DDIMScheduler:
    """x0-prediction on a cosine schedule that ends in pure noise (Lin et al., arXiv 2305.08891)."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="sample",
        clip_sample=False,
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        set_alpha_to_one=True,
    )


def build_detail_unet(
    widths: Sequence[int] = (48, 64, 96), layers_per_block: int = 1, sample_size: int = 32
) -> UNet2DModel:
    """A detail network that adds nothing yet: its picture is the smaller one, enlarged."""
    levels = len(widths)
    unet = UNet2DModel(
        sample_size=sample_size,
        in_channels=HAAR_CHANNELS + sum(CONDITION_CHANNELS.values()),
        out_channels=HAAR_CHANNELS,
        block_out_channels=tuple(widths),
        layers_per_block=layers_per_block,
        down_block_types=("DownBlock2D",) * levels,
        up_block_types=("UpBlock2D",) * levels,
        add_attention=False,
        norm_num_groups=16,
        resnet_time_scale_shift="scale_shift",
        class_embed_type="timestep",
    )
    torch.nn.init.zeros_(unet.conv_out.weight)
    torch.nn.init.zeros_(unet.conv_out.bias)
    return unet


def condition(
    smaller: torch.Tensor,
    canvas: torch.Tensor,
    canvas_scale: torch.Tensor,
    sketch: torch.Tensor,
    sketch_scale: torch.Tensor,
    hole: torch.Tensor | None = None,
    known: torch.Tensor | None = None,
) -> torch.Tensor:
    """What an octave reads in all of its steps, (B, 34, h, w), for a picture of 2h x 2w.

    Args:
        smaller: (B, 3, h, w) in [-1, 1].
        canvas: (B, 1, 2h, 2w), lightness over 10; sketch: (B, 3, 2h, 2w), sRGB in [-1, 1].
        canvas_scale, sketch_scale: strengths, (B, 1, h, w) or what expands to it.
        hole: (B, 1, h, w), 1 where a cell is to be painted, all of them if not given; known: (B, 12, h, w), the cells
            of the picture around it.
    """
    size = (len(smaller), -1, *smaller.shape[2:])
    canvas_scale, sketch_scale = canvas_scale.expand(size), sketch_scale.expand(size)
    if hole is None:
        hole, known = torch.ones_like(canvas_scale), smaller.new_zeros(len(smaller), HAAR_CHANNELS, *smaller.shape[2:])
    parts = [
        smaller,
        F.pixel_unshuffle(canvas, 2) * canvas_scale,
        canvas_scale,
        F.pixel_unshuffle(sketch, 2) * sketch_scale,
        sketch_scale,
        hole,
        known * (1 - hole),
    ]
    return torch.cat([part.to(smaller) for part in parts], 1)


def predict_cells(
    unet: torch.nn.Module, noisy: torch.Tensor, timesteps: torch.Tensor, conditions: torch.Tensor, levels: torch.Tensor
) -> torch.Tensor:
    """The clean cells (B, 12, h, w): the network gives what is to be added to the smaller picture.

    Args:
        timesteps, levels: (B,), the latter in units of the deviation of the noise of pictures in [-1, 1].
    """
    # The stock class embeds a level in float32 and hands it on so, whatever it computes in: autocast brings it to half
    # precision, but not to double, where the weights have to be brought to it.
    dtype, given = noisy.dtype, (torch.cat([noisy, conditions], 1), timesteps, levels * LEVEL_STEPS)
    if dtype == torch.float64:
        single = {name: weight.float() for name, weight in unet.state_dict().items()}
        added = functional_call(unet, single, tuple(one.float() for one in given)).sample
    else:
        with torch.autocast(noisy.device.type, dtype, enabled=dtype != torch.float32):
            added = unet(*given).sample
    return added.to(dtype) + F.pad(2 * conditions[:, :3], (0, 0, 0, 0, 0, HAAR_CHANNELS - 3))


def compose(
    smaller: torch.Tensor,
    canvas: torch.Tensor,
    canvas_scale: torch.Tensor,
    sketch: torch.Tensor,
    sketch_scale: torch.Tensor,
) -> torch.Tensor:
    """Canvas over sketch, each by its strength, over the enlarged smaller picture: no network, (B, 3, H, W) in [-1, 1].

    Args:
        smaller: (B, 3, h, w) in [-1, 1]; canvas: (B, 1, H, W), lightness over 10; sketch: (B, 3, H, W), sRGB in [-1, 1].
        canvas_scale, sketch_scale: strengths, maps (B, 1, ...) of any size.
    """
    lab, scale = _laid(smaller, canvas, canvas_scale, sketch, sketch_scale)
    return _joined(lab, canvas, scale).to(smaller)


def _laid(
    smaller: torch.Tensor,
    canvas: torch.Tensor,
    canvas_scale: torch.Tensor,
    sketch: torch.Tensor,
    sketch_scale: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Lab (B, 3, H, W) of the sketch over the enlarged smaller picture, and the strength of the canvas over it, (B, 1, H, W)."""
    maps = (smaller, canvas_scale, sketch_scale)
    enlarged, canvas_scale, sketch_scale = (
        F.interpolate(one.float(), canvas.shape[2:], mode="bilinear") for one in maps
    )
    lab = rgb_to_lab(torch.lerp(enlarged, sketch.float(), sketch_scale.clamp(0, 1)).clamp(-1, 1) / 2 + 0.5)
    return lab, canvas_scale * room_for(DETAIL_UNIT * canvas.float(), canvas_scale, lab[:, :1])


def _joined(lab: torch.Tensor, canvas: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    lightness = lab[:, :1] + DETAIL_UNIT * scale * canvas.float()
    return lab_to_rgb(torch.cat([lightness, lab[:, 1:]], 1)) * 2 - 1


@without_autocast
def room_for(texture: torch.Tensor, scale: torch.Tensor, lightness: torch.Tensor) -> torch.Tensor:
    """How strong a texture is laid in each place, (B, 1, H, W), about 1: weaker beside what a sketch shows by itself.

    Edges, lettering, folds: variances add up, so that the texture's is what these leave of its mean. What is taken there is
    laid elsewhere, within bounds. Over an even sketch it is 1.

    Args:
        texture, lightness: (B or 1, 1, H, W), the texture to be added, and the sketch's lightness.
        scale: how much of the texture is to be added, (B, 1, H, W).
    """
    sigma = AROUND * min(lightness.shape[2:])
    own, laid = ((one - _local_mean(one, sigma)).square() for one in (lightness, texture))

    def mean(values: torch.Tensor) -> torch.Tensor:
        """Over what is textured."""
        return (values * scale).mean((2, 3), keepdim=True) / scale.mean((2, 3), keepdim=True).clamp(min=1e-6)

    share = 1 - _local_mean(own, sigma) / (mean(laid) * scale.square()).clamp(min=1)
    share = share.clamp(min=LEAST_LAID**2)
    return (share / mean(share).clamp(min=MOST_LAID**-2)).sqrt()


def _local_mean(values: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian means of maps; wide ones of shrunk maps, which differ by little and cost less."""
    factor, size = max(1, int(sigma / 3)), values.shape[2:]
    if factor == 1:
        return gaussian_blur(values, sigma)
    small = F.interpolate(values, [-(-side // factor) for side in size], mode="area")
    return F.interpolate(gaussian_blur(small, sigma / factor), size, mode="bilinear")


@torch.no_grad()
def paint_octave(
    unet: UNet2DModel,
    scheduler: object,
    conditions: torch.Tensor,
    level: float | torch.Tensor,
    num_inference_steps: int = STEPS,
    generator: torch.Generator | list[torch.Generator] | None = None,
    start: tuple[torch.Tensor, torch.Tensor | float] | None = None,
) -> torch.Tensor:
    """A picture (B, 3, 2h, 2w) in [-1, 1], not clamped, from what `condition` gives; known cells stay as they are.

    Args:
        level: a number, or one of each picture (B,).
        start: a picture (B, 3, 2h, 2w) in [-1, 1] to begin with, and the share of the steps that it spares, a number in
            [0, 1] or a map (B, 1, h, w) of them. All steps are done where it is 0.

    Raises:
        ValueError: for a size that the network cannot halve often enough.
    """
    unit = 2 ** (len(unet.config.block_out_channels) - 1)
    batch, _, height, width = conditions.shape
    if height % unit or width % unit:
        raise ValueError(
            f"The detail network paints sides that are multiples of {2 * unit} pixels, got {2 * height} x {2 * width}; "
            f"crop or pad to one of them."
        )
    levels = torch.as_tensor(level, dtype=torch.float32).to(conditions).expand(batch)
    known, hole = conditions[:, -HAAR_CHANNELS:], conditions[:, -HAAR_CHANNELS - 1, None]
    cells = noise = randn_tensor((batch, HAAR_CHANNELS, height, width), generator, conditions.device, conditions.dtype)
    scheduler.set_timesteps(num_inference_steps, device=conditions.device)
    picture, share = (None, 0.0) if start is None else start
    begins = (
        (torch.as_tensor(share, dtype=torch.float32).to(conditions) * num_inference_steps)
        .round()
        .clamp(0, num_inference_steps - 1)
    )
    for step in range(int(begins.min()), num_inference_steps):
        timestep = scheduler.timesteps[step]
        if step and (begins >= step).any():
            begun = scheduler.add_noise(to_cells(picture), noise, timestep[None])
            cells = torch.where(begins < step, cells, begun)
        predicted = predict_cells(unet, cells, timestep.expand(batch), conditions, levels)
        predicted = torch.where(hole > 0, predicted, known)
        cells = scheduler.step(predicted, timestep, cells, return_dict=False)[0]
    return to_picture(predicted)  # the last step of some schedules leaves a little noise


def paint_octaves(
    unet: UNet2DModel,
    scheduler: object,
    smaller: torch.Tensor,
    canvas: torch.Tensor,
    sketch: torch.Tensor,
    canvas_scale: float | torch.Tensor = 1.0,
    sketch_scale: float | torch.Tensor = 1.0,
    levels: Sequence[float] = LEVELS,
    num_inference_steps: int = STEPS,
    generator: torch.Generator | list[torch.Generator] | None = None,
    known: tuple[torch.Tensor, torch.Tensor] | None = None,
    kept: float = 0.0,
) -> torch.Tensor:
    """Octave after octave from `smaller` (B, 3, h, w) in [-1, 1] to the size of canvas and sketch, clamped to [-1, 1].

    Args:
        canvas: (B, 1, H, W) and sketch: (B, 3, H, W), H and W a power of two times h and w; each octave reads them shrunk.
        canvas_scale, sketch_scale: a number, or a map (B, 1, H, W).
        levels: of the smaller picture, by octave; the last one serves all that follow. The first rises to `SKETCHED_LEVEL`
            as the strength of the sketch does.
        known: a picture (B, 3, H, W) in [-1, 1] and its hole (B, 1, H, W), 1 where it is painted: around the hole all octaves
            keep it, cell by cell.
        kept: how much of that picture survives in the hole, in [0, 1]; 0 is nothing.

    Raises:
        ValueError: for sizes that no whole number of octaves joins.
    """
    octaves = (canvas.shape[3] // smaller.shape[3]).bit_length() - 1
    if octaves < 0 or canvas.shape[2:] != tuple(side << octaves for side in smaller.shape[2:]):
        raise ValueError(
            f"Canvas and sketch must be 1, 2, 4, 8, ... times as large as the smaller picture, got "
            f"{tuple(canvas.shape[2:])} and {tuple(smaller.shape[2:])}."
        )
    for octave in range(octaves):
        height, width = smaller.shape[2:]
        scales = (_shrunk(scale, smaller, (height, width)) for scale in (canvas_scale, sketch_scale))
        laid = (_shrunk(maps, smaller, (2 * height, 2 * width)) for maps in (canvas, sketch))
        pairs = [part for pair in zip(laid, scales, strict=True) for part in pair]
        level = levels[min(octave, len(levels) - 1)]
        if octave == 0:
            level = level + (SKETCHED_LEVEL - level) * pairs[3].mean((1, 2, 3))
        believed = pairs[3].clamp(0, 1)
        composed, start, room = None, None, pairs[1]
        if (believed > 0).any():
            lab, laid_scale = _laid(smaller, *pairs)
            composed = _joined(lab, pairs[0], laid_scale).to(smaller)
            room = _shrunk(laid_scale, smaller, (height, width))
            start = (composed, COMPOSED * believed)
        # What is kept of a picture is no composition; else that lays textures as strong as it is told.
        settled = believed * (1 - kept)
        pairs[1] = torch.lerp(CANVAS_GAIN * pairs[1], room, settled)
        around: tuple[torch.Tensor, ...] = ()
        if known is not None:
            picture, hole = _shrunk(known[0], smaller, (2 * height, 2 * width)), known[1].to(smaller)
            hole = F.adaptive_max_pool2d(hole, (height, width))
            smaller = torch.where(hole > 0, smaller, F.avg_pool2d(picture, 2))
            around = (hole, to_cells(picture))
            start = (picture, kept) if kept else start
        given = condition(smaller, *pairs, *around)
        smaller = paint_octave(unet, scheduler, given, level, num_inference_steps, generator, start)
        if composed is not None:
            where = settled * around[0] if around else settled
            coarse = gaussian_blur((composed - smaller).float(), PINNED_SIGMA).to(smaller)
            smaller = smaller + F.interpolate(where.to(smaller).expand(-1, -1, height, width), scale_factor=2) * coarse
        smaller = smaller.clamp(-1, 1)
    return smaller


def _shrunk(maps: torch.Tensor | float, like: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Maps (B, C, H, W) at a smaller size; a number as a map of one pixel."""
    maps = torch.as_tensor(maps, dtype=torch.float32).to(like)
    return maps.view(-1, 1, 1, 1) if maps.ndim < 4 else F.interpolate(maps, size, mode="area")
