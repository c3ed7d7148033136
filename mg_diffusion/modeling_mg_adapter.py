"""MGAdapter: features of color, texture and shape -> fusion -> conditioning of a stock UNet.

Step 3 of the method, *fuse*, F = phi(X; theta): every granularity becomes a few tokens; a residual attention across
the granularities that are present mixes them (T' = T + alpha * attention(T), alpha starts at zero); and the result
enters a `UNet2DConditionModel` through two doors:

- tokens for a decoupled cross-attention (IP-Adapter, Ye et al., arXiv 2308.06721), one softmax per granularity;
- residuals for the down blocks (T2I-Adapter, Mou et al., arXiv 2302.08453): the shape pyramid, modulated by color and
  texture, a canvas laid out from the texture's shuffled tiles, and a sketch: the palette of the color reference laid
  into the regions of the shape reference.

Strength multiplies after the last projection, so 0 is exactly "absent". Everything that does not change over the
denoising steps is computed once: keys and values are even folded with the UNet's own query and output projections,
so that a step costs two small matrix products per attention layer.

This file is self-contained: it is copied into exported repositories and loaded from there as remote code.
"""

import contextlib
import inspect
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise, product
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils.torch_utils import randn_tensor
from torch import nn


TILE_OVERLAP = 6
Features = dict[str, dict[str, torch.Tensor]]
# Keys and values by layer; where references have regions, also whose each position is, (B, positions, sets).
FoldedAttention = dict[str, tuple[torch.Tensor, ...]]
Residuals = list[torch.Tensor]
Curve = tuple[float, float] | list[float] | Callable[[float], float]


def parse_strengths(scale: Any, granularities: Sequence[str], batch_size: int) -> torch.Tensor:
    """`granularity_scale` to a tensor (batch_size, number of granularities).

    Args:
        scale: a float for all granularities, or {granularity: float or list of `batch_size` floats}; a granularity
            that is not named keeps 1.0. 0 is off, 1 as trained, above 1 extrapolates.

    Raises:
        ValueError: for an unknown granularity, a negative or non-finite strength, a list of another length, or
            something that is not a number.
    """
    per_name = dict(scale) if isinstance(scale, dict) else dict.fromkeys(granularities, scale)
    unknown = [name for name in per_name if name not in granularities]
    if unknown:
        raise ValueError(f"Unknown granularity {unknown[0]!r} in granularity_scale; known are {tuple(granularities)}.")
    columns = []
    for name in granularities:
        try:
            value = torch.as_tensor(per_name.get(name, 1.0), dtype=torch.float32).reshape(-1)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"granularity_scale[{name!r}] must be a number or a list of numbers, got {per_name[name]!r}."
            ) from error
        if value.numel() not in (1, batch_size):
            raise ValueError(
                f"granularity_scale[{name!r}] must be one number or one for each of the {batch_size} samples, got "
                f"{value.numel()} numbers."
            )
        if not torch.isfinite(value).all() or (value < 0).any():
            raise ValueError(
                f"granularity_scale[{name!r}] must be finite and at least 0 (0 is off, 1 is as trained), got "
                f"{value.tolist()}."
            )
        columns.append(value.expand(batch_size))
    return torch.stack(columns, 1)


def parse_schedule(schedule: dict[str, Curve], granularities: Sequence[str], steps: int) -> torch.Tensor:
    """`granularity_schedule` to factors of the strengths, (steps, number of granularities).

    Args:
        schedule: by granularity a window (start, end) in fractions of the run, a list of values from the first step to
            the last with straight lines between them, or a callable of the fraction, 0 at the first step and 1 at the
            last. A granularity that is not named keeps 1.

    Raises:
        ValueError: for an unknown granularity, a window that is none, or factors that are not finite and at least 0.
    """
    if not isinstance(schedule, dict) or any(name not in granularities for name in schedule):
        raise ValueError(
            f"granularity_schedule is a dict with some of the keys {tuple(granularities)}, got "
            f"{list(schedule) if isinstance(schedule, dict) else type(schedule).__name__}."
        )
    factors = torch.ones(steps, len(granularities))
    for name, curve in schedule.items():
        try:
            values = torch.tensor([_factor(curve, index, steps) for index in range(steps)], dtype=torch.float32)
        except (TypeError, ValueError, IndexError) as error:
            raise ValueError(
                f"granularity_schedule[{name!r}] must be a window (start, end) with 0 <= start < end <= 1, a list of "
                f"numbers, or a callable of the fraction of the run; got {curve!r} ({error})."
            ) from error
        if isinstance(curve, tuple) and not values.any():
            raise ValueError(
                f"granularity_schedule[{name!r}]: no step of {steps} lies as a whole in the window {curve}. Widen it, "
                f"or run more steps."
            )
        if not torch.isfinite(values).all() or (values < 0).any():
            raise ValueError(
                f"granularity_schedule[{name!r}] must be finite and at least 0 in every step, got {values.tolist()}."
            )
        factors[:, list(granularities).index(name)] = values
    return factors


def _factor(curve: Curve, index: int, steps: int) -> float:
    """What one curve of `parse_schedule` multiplies the strength of step `index` with."""
    fraction = index / max(steps - 1, 1)
    if callable(curve):
        return float(curve(fraction))
    if isinstance(curve, tuple):
        start, end = (float(value) for value in curve)
        if not 0 <= start < end <= 1:
            raise ValueError(f"a window from {start:g} to {end:g}")
        # A step counts if it lies in the window as a whole, as diffusers counts those of a ControlNet.
        return float(start <= index / steps and (index + 1) / steps <= end)
    place = fraction * (len(curve) - 1)
    below, above = curve[math.floor(place)], curve[math.ceil(place)]
    return float(below) + (place - math.floor(place)) * (float(above) - float(below))


def lay_tiles(tiles: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Quilt texture tiles (B, K, p, p) over a canvas (B, 1, height, width), in encoder pixels.

    In each place, row by row, the tile goes that fits best to what already lies there, tiles used before being dearer.
    Neighbors overlap by 6 pixels and are blended so that the contrast is kept where uncorrelated pieces meet. (Efros
    and Freeman, "Image quilting for texture synthesis and transfer", SIGGRAPH 2001, with a blend for their cut.)
    """
    batch, size = len(tiles), tiles.shape[2]
    stride = size - TILE_OVERLAP
    rows, columns = (max(1, math.ceil((side - TILE_OVERLAP) / stride)) for side in (height, width))
    canvas = tiles.new_zeros(batch, rows * stride + TILE_OVERLAP, columns * stride + TILE_OVERLAP)
    ramp = (torch.arange(TILE_OVERLAP, device=tiles.device) + 1).to(tiles) / (TILE_OVERLAP + 1)
    used, price = tiles.new_zeros(tiles.shape[:2]), tiles.var((1, 2, 3))
    every = torch.arange(batch, device=tiles.device)
    for row, column in product(range(rows), range(columns)):
        place = (..., slice(row * stride, row * stride + size), slice(column * stride, column * stride + size))
        laid, cost, share = canvas[place], used, tiles.new_ones(size, size)
        if row:
            above = slice(0, TILE_OVERLAP)
            cost = cost + (tiles[:, :, above] - laid[:, None, above]).square().mean((2, 3))
            share[above] *= ramp[:, None]
        if column:
            left = (..., slice(0, TILE_OVERLAP))
            cost = cost + (tiles[left] - laid[:, None][left]).square().mean((2, 3))
            share[left] *= ramp
        chosen = cost.argmin(1)
        used = used.index_put((every, chosen), price, accumulate=True)
        blend = share * tiles[every, chosen] + (1 - share) * laid
        canvas[place] = blend / (share.square() + (1 - share).square()).sqrt()
    return canvas[:, None, :height, :width]


def lay_palette(
    structure: torch.Tensor, palette: torch.Tensor, area: torch.Tensor | None = None, steps: int = 6
) -> torch.Tensor:
    """Paint the regions of a structure map with the colors of a palette, in the order the map gives them.

    Iterative distribution transfer (Pitie et al., "N-dimensional probability density function transfer", ICCV 2005):
    sort along axes until all marginals agree. The first axes are the map's own, the others random but always the same.
    Then `one_color_per_region`: the proportions of the palette are not those of the regions.

    Args:
        structure: (B, 3, H, W), a structure map or a turn of one; palette: (B, N, 3) Lab colors of equal weight;
            area: (B, 1, H, W) at least 0, how much of the palette a place takes up, everywhere the same if not given.
            Of each the batch may be 1.

    Returns:
        (B, 3, H, W) Lab.
    """
    generator = torch.Generator().manual_seed(0)
    turns = torch.linalg.qr(torch.randn(steps, 3, 3, generator=generator))[0]
    turns[0] = torch.eye(3)
    area = torch.ones_like(structure[:1, :1]) if area is None else area
    batch = max(len(structure), len(palette), len(area))
    values = structure.float().flatten(2).transpose(1, 2).expand(batch, -1, -1)
    painted, colors = values, palette.float().expand(batch, -1, -1)
    shares = area.float().flatten(1).unsqueeze(2).expand(batch, -1, 3)
    shares = shares / shares.sum(1, keepdim=True)
    for turn in turns.to(painted):
        # Products written out: autocast would round a matrix product, and with it the order of the pixels.
        order = (painted.unsqueeze(3) * turn).sum(2).argsort(dim=1, stable=True)
        wanted = (colors.unsqueeze(3) * turn).sum(2).sort(1).values
        share = shares.gather(1, order)
        reached = share.cumsum(1) - share / 2
        painted = torch.empty_like(reached).scatter(1, order, _quantile(wanted, reached))
        painted = (painted.unsqueeze(3) * turn.T).sum(2)
    with torch.autocast(painted.device.type, enabled=False):
        painted = one_color_per_region(painted, values, shares[..., :1])
    return painted.transpose(1, 2).unflatten(2, structure.shape[2:])


def _quantile(values: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Sorted values (B, N, 3) at shares (B, M, 3) in [0, 1] of them, with straight lines between."""
    places = (shares * values.shape[1] - 0.5).clamp(0, values.shape[1] - 1)
    below = places.long()
    above = (below + 1).clamp(max=values.shape[1] - 1)
    return torch.lerp(values.gather(1, below), values.gather(1, above), places - below)


def one_color_per_region(
    painted: torch.Tensor, values: torch.Tensor, shares: torch.Tensor, anchors: int = 256
) -> torch.Tensor:
    """Give pixels of nearly the same structure the same color: painted and values (B, N, 3) -> (B, N, 3).

    `shares` (B, N, 1) sum to 1: how much each pixel counts in mean and covariance.

    What is exact in its proportions splits a region of the map wherever the palette has too little of a color. Here
    the modes of the map (mean shift, Comaniciu and Meer, TPAMI 2002) get the mean color of what was painted near them.
    They are sought from every n-th pixel in the order of the map's first channel, which a mirrored map has as well.
    Means are duller than what they average, therefore mean and covariance are brought back at the end by the linear
    transport between Gaussians (Pitie and Kokaram, CVMP 2007).
    """
    places = torch.linspace(0, values.shape[1] - 1, min(anchors, values.shape[1]), device=values.device).long()
    sample = values[..., 0].argsort(dim=1)[:, places].unsqueeze(2).expand(-1, -1, 3)
    seeds = modes = values.gather(1, sample)
    for _ in range(3):
        modes = _kernel_mean(modes, seeds, seeds, 0.15)
    colors = _kernel_mean(modes, modes, painted.gather(1, sample), 0.1)
    means = _kernel_mean(values, seeds, colors, 0.1)
    # What counts for nothing may lie far from all that counts, and would be carried off by the transport.
    return torch.where(shares > 0, _match_covariance(means, painted, shares), means)


def _kernel_mean(at: torch.Tensor, places: torch.Tensor, values: torch.Tensor, width: float) -> torch.Tensor:
    """Mean of `values` (B, M, 3) at `places` (B, M, 3), weighted by a Gaussian of their distance to `at` (B, N, 3)."""
    # -|a - p|^2 / 2 is a p - |p|^2 / 2 less what all places share: attention, in the form torch has fast kernels for.
    query = torch.cat([at, torch.ones_like(at[..., :1])], 2)
    key = torch.cat([places, -places.square().sum(2, keepdim=True) / 2], 2)
    value = F.pad(values, (0, 1))
    mean = F.scaled_dot_product_attention(*(x.unsqueeze(1) for x in (query, key, value)), scale=width**-2)
    return mean[:, 0, :, :3]


def _match_covariance(
    colors: torch.Tensor, target: torch.Tensor, shares: torch.Tensor, floor: float = 4.0
) -> torch.Tensor:
    """`colors` (B, N, 3), moved linearly so that mean and covariance are those of `target` (B, N, 3)."""
    middle = (shares * target).sum(1, keepdim=True)
    centered = colors - (shares * colors).sum(1, keepdim=True)
    flat = floor * torch.eye(3).to(colors)  # what has no variance cannot be given any
    have, want = (x.transpose(1, 2) @ (shares * x) + flat for x in (centered, target - middle))
    root, inverse = _power(have, 0.5), _power(have, -0.5)
    return middle + centered @ (inverse @ _power(root @ want @ root, 0.5) @ inverse)


def _power(matrix: torch.Tensor, exponent: float) -> torch.Tensor:
    """Power of symmetric positive matrices (B, 3, 3)."""
    variance, basis = torch.linalg.eigh(matrix)
    return basis * variance.clamp(min=1e-6).pow(exponent).unsqueeze(1) @ basis.transpose(1, 2)


def random_turns(noise: torch.Tensor) -> torch.Tensor:
    """Normal noise (B, 3, 3) to orthogonal matrices, all of them equally likely (Mezzadri, Notices of the AMS 2007)."""
    q, r = torch.linalg.qr(noise)
    return q * r.diagonal(dim1=1, dim2=2).sign().unsqueeze(1)


def turn_colors(structure: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """A structure map (B, 3, H, W) in other false colors: turns are (B, 3, 3). One of the batches may be 1."""
    # Written out: autocast would round a matrix product, and with it the order of the pixels.
    turned = (turns.to(structure.dtype).unsqueeze(3) * structure.flatten(2).unsqueeze(1)).sum(2)
    return turned.unflatten(2, structure.shape[2:])


def zero_module(module: nn.Module) -> nn.Module:
    """Start a projection at zero, so that an untrained adapter leaves the base model as it is."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class MGAttnProcessor:
    """Adds the granularities to one cross-attention layer; the layer's own processor still does the rest.

    The folded keys and values arrive with each call as `ip_hidden_states` (one of the names diffusers passes through
    `cross_attention_kwargs` without a warning); without them the layer behaves as before.
    """

    _attention_backend = None
    _parallel_config = None

    def __init__(self, base: Any, layer: str, num_tokens: int):
        self.base = base
        self.layer = layer
        self.num_tokens = num_tokens
        self.folded = None  # where it is handed out instead of passed on, see `MGAdapter.attach`
        self.takes_masks = "ip_adapter_masks" in inspect.signature(base.__call__).parameters

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        ip_hidden_states: FoldedAttention | None = None,
        ip_adapter_masks: Any = None,
    ) -> torch.Tensor:
        # Only what is given and taken: a sliced processor has no `temb`, that of an IP-Adapter has masks.
        extra = {} if temb is None else {"temb": temb}
        if self.takes_masks and ip_adapter_masks is not None:
            extra["ip_adapter_masks"] = ip_adapter_masks
        output = self.base(attn, hidden_states, encoder_hidden_states, attention_mask, **extra)
        folded = self.folded if ip_hidden_states is None else ip_hidden_states[self.layer]
        if folded is None:
            return output
        key, value, *shares = folded
        scores = hidden_states @ key  # (B, positions, heads * sets * granularities * tokens)
        weights = scores.unflatten(2, (-1, self.num_tokens)).softmax(-1)
        if shares:
            heads, sets = attn.heads, shares[0].shape[2]
            weights = weights.flatten(2).unflatten(2, (heads, sets, -1)) * shares[0][:, :, None, :, None]
        weights = weights.flatten(2)
        return output + (weights @ value) / attn.rescale_output_factor


class TokenProjection(nn.Module):
    """Pooled vector (B, size) -> tokens (B, num_tokens, token_dim)."""

    def __init__(self, size: int, num_tokens: int, token_dim: int):
        super().__init__()
        self.shape = (num_tokens, token_dim)
        self.net = nn.Sequential(
            nn.LayerNorm(size), nn.Linear(size, 256), nn.GELU(), nn.Linear(256, num_tokens * token_dim)
        )
        self.norm = nn.LayerNorm(token_dim)

    def forward(self, vector: torch.Tensor) -> torch.Tensor:
        return self.norm(self.net(vector).unflatten(1, self.shape))


class Fusion(nn.Module):
    """T' = T + alpha * CrossGranularityAttention(T); absent granularities are masked out of the attention."""

    def __init__(self, token_dim: int, heads: int = 4):
        super().__init__()
        self.norm = nn.LayerNorm(token_dim)
        self.attention = nn.MultiheadAttention(token_dim, heads, batch_first=True)
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, tokens: torch.Tensor, present: torch.Tensor, fusion_scale: float = 1.0) -> torch.Tensor:
        """tokens (B, G, T, D), present (B, G) bool; `fusion_scale` 0 switches the fusion off."""
        # Where nothing is present every key would be masked and softmax gives NaN; nothing reads those rows.
        visible = present | ~present.any(1, keepdim=True)
        sequence = self.norm(tokens.flatten(1, 2))
        hidden = ~visible.repeat_interleave(tokens.shape[2], dim=1)
        mixed, _ = self.attention(sequence, sequence, sequence, key_padding_mask=hidden, need_weights=False)
        return tokens + fusion_scale * self.alpha * mixed.view_as(tokens)


class ShapeResiduals(nn.Module):
    """R_l = Z_l(S_l) * (1 + tanh gamma_l(color, texture)): the shape pyramid to residuals of every down block."""

    def __init__(self, map_channels: Sequence[int], block_channels: Sequence[int], token_dim: int):
        super().__init__()
        levels = [min(level, len(map_channels) - 1) for level in range(len(block_channels))]
        self.levels = levels
        self.stems = nn.ModuleList(nn.Conv2d(map_channels[level], 64, 3, padding=1) for level in levels)
        self.outs = nn.ModuleList(zero_module(nn.Conv2d(64, width, 1)) for width in block_channels)
        self.gammas = nn.ModuleList(zero_module(nn.Linear(2 * token_dim, width)) for width in block_channels)

    def forward(
        self, shape: dict[str, torch.Tensor], others: torch.Tensor, sizes: Sequence[tuple[int, int]]
    ) -> list[torch.Tensor]:
        residuals = []
        for level, stem, out, gamma, size in zip(self.levels, self.stems, self.outs, self.gammas, sizes, strict=True):
            maps = shape[f"map_{level}"]
            if maps.shape[2:] != tuple(size):
                smaller = size[0] < maps.shape[2]
                maps = (
                    F.adaptive_avg_pool2d(maps, size) if smaller else F.interpolate(maps, size=size, mode="bilinear")
                )
            gain = 1 + torch.tanh(gamma(others))[:, :, None, None]
            residuals.append(out(F.silu(stem(maps))) * gain)
        return residuals


class CanvasResiduals(nn.Module):
    """A picture laid out in encoder pixels (texture canvas, sketch) to residuals of every down block."""

    def __init__(self, channels: int, map_stride: int, block_channels: Sequence[int], block_strides: Sequence[int]):
        super().__init__()
        self.stride = map_stride * block_strides[0]  # canvas pixels a cell of the first residual
        strides = [1, *(below // above for above, below in pairwise(block_strides))]
        first = channels * self.stride**2
        self.stems = nn.ModuleList(
            nn.Conv2d(first if level == 0 else 64, 64, 3, stride=stride, padding=1)
            for level, stride in enumerate(strides)
        )
        self.outs = nn.ModuleList(zero_module(nn.Conv2d(64, width, 1)) for width in block_channels)

    def forward(self, canvas: torch.Tensor, sizes: Sequence[tuple[int, int]]) -> list[torch.Tensor]:
        """canvas (B, channels, sizes[0] * stride) -> one residual (B, C_l, *sizes[l]) per block."""
        hidden = F.pixel_unshuffle(canvas, self.stride)
        residuals = []
        for stem, out, size in zip(self.stems, self.outs, sizes, strict=True):
            hidden = F.silu(stem(hidden))
            if hidden.shape[2:] != tuple(size):
                hidden = F.interpolate(hidden, size=size, mode="bilinear", align_corners=False)
            residuals.append(out(hidden))
        return residuals


def down_block_sizes(strides: Sequence[int], height: int, width: int) -> list[tuple[int, int]]:
    """Spatial size of every residual for latents of height x width; UNet downsampling rounds up."""
    return [(-(-height // stride), -(-width // stride)) for stride in strides]


class MGAdapter(ModelMixin, ConfigMixin):
    """The trained, separately saved part: tokens, fusion and residuals for one kind of UNet.

    Build it with `MGAdapter.from_unet(unet, encoder)`. At inference the pipelines call `condition` once and run the
    denoising loop inside `with adapter.attach(unet)`.

    Args:
        granularities: names in the order of the tokens.
        vector_sizes: {granularity: length of the encoder's pooled vector}.
        map_channels: widths of the encoder's shape pyramid, finest first.
        attention_layers: the UNet's cross-attention layers, [{"name", "query_dim", "inner_dim", "heads"}, ...].
        block_channels, block_strides: channels and stride of the residual of every down block.
        num_tokens: tokens per granularity; equal, so that one matrix product serves all.
        token_dim: width of a token.
        map_stride: encoder pixels per latent cell of the shape map and the texture canvas.
    """

    _auto_class = "AutoModel"  # what `register_for_auto_class` sets
    # Layers are used one by one, outside of `forward`, and an `nn.MultiheadAttention` reads its last projection's
    # weights without calling it: hooks of group offloading would not see either, nor layerwise casting the latter.
    _supports_group_offloading = False
    _skip_layerwise_casting_patterns = ["fusion"]

    @register_to_config
    def __init__(
        self,
        granularities: tuple[str, ...],
        vector_sizes: dict[str, int],
        map_channels: tuple[int, ...],
        attention_layers: list[dict[str, Any]],
        block_channels: tuple[int, ...],
        block_strides: tuple[int, ...],
        num_tokens: int = 8,
        token_dim: int = 128,
        map_stride: int = 2,
    ):
        super().__init__()
        self.tokens = nn.ModuleDict(
            {name: TokenProjection(vector_sizes[name], num_tokens, token_dim) for name in granularities}
        )
        self.fusion = Fusion(token_dim)
        self.to_k = nn.ModuleList(
            nn.ModuleDict({name: nn.Linear(token_dim, layer["inner_dim"], bias=False) for name in granularities})
            for layer in attention_layers
        )
        self.to_v = nn.ModuleList(
            nn.ModuleDict(
                {name: zero_module(nn.Linear(token_dim, layer["inner_dim"], bias=False)) for name in granularities}
            )
            for layer in attention_layers
        )
        if "shape" in granularities:
            self.shape_residuals = ShapeResiduals(map_channels, block_channels, token_dim)
        if "texture" in granularities:
            self.texture_residuals = CanvasResiduals(1, map_stride, block_channels, block_strides)
        if {"color", "shape"} <= set(granularities):
            self.sketch_residuals = CanvasResiduals(3, map_stride, block_channels, block_strides)

    # -- saving and loading -------------------------------------------------------------------------------------------
    def save_config(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """As in `ConfigMixin`, with the code beside it: `AutoModel` loads the folder where no package is installed."""
        os.makedirs(save_directory, exist_ok=True)
        shutil.copy(inspect.getsourcefile(type(self)), save_directory)
        super().save_config(save_directory, **kwargs)

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> tuple:
        """As in `ConfigMixin`; that `config_dict` names the file of the class for `AutoModel` is no setting."""
        settings = {name: value for name, value in config_dict.items() if name != "auto_map"}
        return super().extract_init_dict(settings, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> "MGAdapter":
        """As `ModelMixin.from_pretrained`, but weights that are missing or foreign are an error, not a warning.

        Raises:
            ValueError: if the folder or Hub repository is missing or damaged, or holds another model.
        """
        place = "/".join(str(part) for part in (pretrained_model_name_or_path, kwargs.get("subfolder")) if part)
        remedy = (
            f"An {cls.__name__} is a folder written by `save_pretrained`, with config.json and "
            f"diffusion_pytorch_model.safetensors; check the path and `subfolder`, or copy or download it again."
        )
        with_info = kwargs.pop("output_loading_info", False)
        try:
            model, info = super().from_pretrained(pretrained_model_name_or_path, output_loading_info=True, **kwargs)
        except torch.OutOfMemoryError:
            raise
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"Cannot load {cls.__name__} from {place!r}: {error}\n{remedy}") from error
        missing, unexpected = (sorted(info.get(key, [])) for key in ("missing_keys", "unexpected_keys"))
        if missing or unexpected:
            raise ValueError(
                f"The weights in {place!r} are not those of this {cls.__name__}: {len(missing)} are missing "
                f"({', '.join(missing[:2])}), {len(unexpected)} are unknown ({', '.join(unexpected[:2])}). {remedy}"
            )
        return (model, info) if with_info else model

    # -- construction and checks --------------------------------------------------------------------------------------
    @classmethod
    def from_unet(cls, unet: nn.Module, encoder: nn.Module, **config: Any) -> "MGAdapter":
        """An untrained adapter that fits a UNet and an encoder.

        Args:
            unet: a `UNet2DConditionModel`: Stable Diffusion 1, 2 or XL, for generation or inpainting.
            encoder: an `MGEncoder`.
            config: arguments of the constructor, in place of what would be chosen. `map_stride` is chosen so that the
                encoder's working size is that of the shape map at the UNet's native size.

        Raises:
            ValueError: if the UNet has no cross-attention layers, or down blocks of a kind that takes no residuals.
        """
        sizes = encoder.vector_sizes
        native = unet.config.sample_size
        native = max(native) if isinstance(native, (tuple, list)) else native
        kinds, layers = set(unet.config.down_block_types), _attention_layers(unet)
        if not layers or not kinds <= {"CrossAttnDownBlock2D", "DownBlock2D"}:
            raise ValueError(
                f"An MGAdapter needs a UNet with cross-attention and with down blocks CrossAttnDownBlock2D or DownBlock2D, "
                f"as those of Stable Diffusion 1, 2 and XL; this one has {len(layers)} cross-attention layers and "
                f"{sorted(kinds)}."
            )
        channels, strides = [], []
        for level, (kind, width) in enumerate(
            zip(unet.config.down_block_types, unet.config.block_out_channels, strict=True)
        ):
            # A CrossAttnDownBlock2D adds its residual before it downsamples, a DownBlock2D after.
            is_last = level == len(unet.config.block_out_channels) - 1
            after = not kind.startswith("CrossAttn") and not is_last
            channels.append(width)
            strides.append(2 ** (level + after))
        arguments = {
            "granularities": tuple(sizes),
            "vector_sizes": sizes,
            "map_channels": encoder.map_channels,
            "attention_layers": layers,
            "block_channels": tuple(channels),
            "block_strides": tuple(strides),
            "map_stride": max(1, encoder.config.sample_size // (native or encoder.config.sample_size)),
        }
        return cls(**{**arguments, **config})

    def check_encoder(self, encoder: nn.Module) -> None:
        """Raise a ValueError unless this adapter was made for such an encoder."""
        sizes, channels = dict(encoder.vector_sizes), tuple(encoder.map_channels)
        expected = dict(self.config.vector_sizes), tuple(self.config.map_channels)
        if (sizes, channels) != expected:
            raise ValueError(
                f"This MGAdapter does not fit the MGEncoder: it expects vectors {expected[0]} and shape maps "
                f"{expected[1]}, the encoder gives {sizes} and {channels}. Load both from the same repository."
            )

    def check_unet(self, unet: nn.Module) -> None:
        """Raise a ValueError unless this adapter was made for such a UNet."""
        found, expected = _attention_layers(unet), [dict(layer) for layer in self.config.attention_layers]
        blocks = tuple(unet.config.block_out_channels)
        if found != expected or blocks != tuple(self.config.block_channels):
            different = next((pair for pair in zip(expected, found, strict=False) if pair[0] != pair[1]), None)
            raise ValueError(
                f"This MGAdapter does not fit the UNet: it was made for {len(expected)} cross-attention layers and "
                f"down blocks {tuple(self.config.block_channels)}, the UNet has {len(found)} and {blocks}"
                + (f"; first difference: {different[0]} against {different[1]}" if different else "")
                + ". Use the base model it was trained on, or train one with MGAdapter.from_unet(unet, encoder)."
            )

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the shape map, in encoder pixels, for latents of height x width: the `size` of `MGEncoder.encode`."""
        return height * self.config.map_stride, width * self.config.map_stride

    def strengths(self, granularity_scale: Any, batch_size: int = 1) -> torch.Tensor:
        """`granularity_scale` of a pipeline call to a tensor (batch_size, G); see `parse_strengths`."""
        return parse_strengths(granularity_scale, self.config.granularities, batch_size)

    def schedule(self, granularity_schedule: dict[str, Curve], steps: int) -> torch.Tensor:
        """`granularity_schedule` of a pipeline call to factors (steps, G); see `parse_schedule`."""
        return parse_schedule(granularity_schedule, self.config.granularities, steps)

    # -- step 3: fuse -------------------------------------------------------------------------------------------------
    def forward(
        self, features: Features, strengths: torch.Tensor, latent_size: tuple[int, int], fusion_scale: float = 1.0
    ) -> tuple[torch.Tensor, list[torch.Tensor] | None]:
        """F = phi(X; theta).

        Args:
            features: from `MGEncoder`, batch dimension 1 or B; a missing granularity is absent.
            strengths: (B, G) at least 0.
            latent_size: (height, width) of the latents.
            fusion_scale: multiplies alpha; 0 is no mixing across granularities.

        Returns:
            fused tokens (B, G, num_tokens, token_dim), and one residual (B, C_l, H_l, W_l) per down block, strength
            included, or `None` when neither shape nor texture is given.
        """
        tokens, apart = self._apart(features, strengths, latent_size, fusion_scale)
        return tokens, self.add_residuals(apart)

    def _apart(
        self, features: Features, strengths: torch.Tensor, latent_size: tuple[int, int], fusion_scale: float
    ) -> tuple[torch.Tensor, dict[tuple[str, ...], Residuals]]:
        """As `forward`, but the residuals by the granularities they come from."""
        batch, names = strengths.shape[0], self.config.granularities
        given = torch.tensor([name in features for name in names], device=strengths.device)
        present = (strengths > 0) & given
        empty = strengths.new_zeros(batch, self.config.num_tokens, self.config.token_dim, dtype=self.dtype)
        tokens = torch.stack(
            [
                self.tokens[name](features[name]["vector"]).expand(batch, -1, -1) if name in features else empty
                for name in names
            ],
            dim=1,
        )
        tokens = self.fusion(tokens, present, fusion_scale)
        tokens = tokens * present[:, :, None, None].to(tokens.dtype)  # the fusion writes to absent ones as well
        sizes = down_block_sizes(self.config.block_strides, *latent_size)
        apart = {}
        for names_used, residuals in self._residuals(features, tokens, sizes):
            strength = _joint(strengths, names, names_used).to(self.dtype).view(-1, 1, 1, 1)
            apart[names_used] = [residual * strength for residual in residuals]
        return tokens, apart

    def _residuals(
        self, features: Features, tokens: torch.Tensor, sizes: list[tuple[int, int]]
    ) -> Iterator[tuple[tuple[str, ...], list[torch.Tensor]]]:
        """Residuals and the granularities they come from."""
        first = self.config.block_strides[0]  # above 1 where a UNet begins with a DownBlock2D, as that of SDXL
        canvas_size = self.map_size(*(side * first for side in sizes[0]))
        if "shape" in features:
            names = list(self.config.granularities)
            means = tokens.mean(2)
            zero = torch.zeros_like(means[:, 0])
            others = [means[:, names.index(name)] if name in names else zero for name in ("color", "texture")]
            yield ("shape",), self.shape_residuals(features["shape"], torch.cat(others, 1), sizes)
        if "texture" in features:
            yield ("texture",), self.texture_residuals(lay_tiles(features["texture"]["tiles"], *canvas_size), sizes)
        if "color" in features and "shape" in features:
            sketch = self.sketch(features, canvas_size)
            middle = sketch.new_tensor([50.0, 0.0, 0.0]).view(1, 3, 1, 1)
            yield ("color", "shape"), self.sketch_residuals(((sketch - middle) / 50.0).to(self.dtype), sizes)

    def sketch(self, features: Features, size: tuple[int, int]) -> torch.Tensor:
        """Which color goes where, (B, 3, *size) in Lab: the palette laid into the regions, or what context knows.

        Of color, an optional `area` (B, 1, H, W) says where the palette goes; see `lay_palette`.
        """
        if "sketch" in features["shape"]:
            return F.adaptive_avg_pool2d(features["shape"]["sketch"], size)
        structure = F.adaptive_avg_pool2d(features["shape"]["structure"], size)
        area = features["color"].get("area")
        area = area if area is None else F.adaptive_avg_pool2d(area, size)
        return lay_palette(structure, features["color"]["palette"], area)

    def fold(self, unet: nn.Module, tokens: torch.Tensor, strengths: torch.Tensor) -> FoldedAttention:
        """Keys and values of every cross-attention layer, folded with its query and output projections.

        softmax(x Wq (t Wk)^T) (t Wv) Wo is softmax(x K') V' with K' = Wq (t Wk)^T and V' = (t Wv) Wo, which do not
        depend on x. K' is (B, query_dim, heads * G * T), V' its transpose in shape, strength included.

        Raises:
            ValueError: if the UNet's blocks are offloaded to disk, where the projections cannot be read.
        """
        check_weights_in_memory(unet)
        modules, dtype = dict(unet.named_modules()), unet.dtype
        folded = {}
        for layer, to_k, to_v in zip(self.config.attention_layers, self.to_k, self.to_v, strict=True):
            attn, heads = modules[layer["name"]], layer["heads"]
            keys = torch.stack([to_k[name](tokens[:, g]) for g, name in enumerate(self.config.granularities)], 1)
            values = torch.stack([to_v[name](tokens[:, g]) for g, name in enumerate(self.config.granularities)], 1)
            values = values * strengths.to(values.dtype)[:, :, None, None]
            query = effective_weight(attn.to_q, layer["query_dim"], keys.device, dtype)
            query = query.unflatten(0, (heads, -1))  # (h, d, c)
            output = effective_weight(attn.to_out[0], layer["inner_dim"], keys.device, dtype)
            output = output.unflatten(1, (heads, -1))  # (c, h, d)
            keys, values = (x.flatten(1, 2).unflatten(2, (heads, -1)) for x in (keys, values))  # (b, gt, h, d)
            key = torch.einsum("bthd,hdc->bcht", keys.to(query.dtype), query * attn.scale).flatten(2)
            value = torch.einsum("bthd,chd->bhtc", values.to(output.dtype), output).flatten(1, 2)
            folded[layer["name"]] = (key, value)
        return folded

    def draw(
        self,
        features: Features,
        batch_size: int,
        generator: torch.Generator | list[torch.Generator] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Draw for each sample what references leave open, for `vary`.

        Args:
            features: from `MGEncoder`, on the device to draw on; whether texture is among them decides what is drawn.
            generator: random numbers to draw from; a list holds one for each of the `batch_size` samples.

        Returns:
            "turns" (batch_size, 3, 3), which region gets which color; with texture "order" (batch_size, num_tiles).
        """
        device = next(iter(features.values()))["vector"].device
        # Drawn even where they are not used: the tiles then lie as with them.
        drawn = {"turns": random_turns(randn_tensor((batch_size, 3, 3), generator, device, torch.float32))}
        if "texture" in features:
            shape = (batch_size, features["texture"]["tiles"].shape[1])
            drawn["order"] = randn_tensor(shape, generator, device, torch.float32).argsort(dim=1)
        return drawn

    def vary(
        self,
        features: Features,
        batch_size: int,
        generator: torch.Generator | list[torch.Generator] | None = None,
        drawn: dict[str, torch.Tensor] | None = None,
    ) -> Features:
        """Settle for each sample what references leave open: which region gets which color, which tile lies where.

        Without this, one set of references has one sketch and one canvas, and the noise of the latents changes little.
        (Of the order of the tiles the first one counts: `lay_tiles` goes on from it with what fits best.)

        Args:
            features: from `MGEncoder`, of a batch that divides `batch_size`.
            generator: as in `draw`.
            drawn: from `draw`, where several sets of features are to have the same.

        Returns:
            features whose `structure`, `sketch` and `tiles` are of batch `batch_size`; the others as they were.
        """
        drawn = self.draw(features, batch_size, generator) if drawn is None else drawn
        varied = {name: dict(parts) for name, parts in features.items()}
        if {"color", "shape"} <= set(features):
            for key in {"structure", "sketch"} & set(features["shape"]):
                value = features["shape"][key]
                varied["shape"][key] = value.repeat_interleave(batch_size // len(value), dim=0)
            own = varied["shape"].pop("turn", None)  # of `MGEncoder.encode_context`, where nothing is left open
            turns = drawn["turns"] if own is None else own.repeat_interleave(batch_size // len(own), dim=0)
            varied["shape"]["structure"] = turn_colors(varied["shape"]["structure"], turns)
        if "texture" in features:
            tiles = features["texture"]["tiles"]
            tiles = tiles.repeat_interleave(batch_size // len(tiles), dim=0)
            rows = torch.arange(batch_size, device=tiles.device).unsqueeze(1)
            varied["texture"]["tiles"] = tiles[rows, drawn["order"]]
        return varied

    def condition(
        self,
        unet: nn.Module,
        features: Features,
        strengths: torch.Tensor,
        latent_size: tuple[int, int],
        fusion_scale: float = 1.0,
    ) -> tuple[FoldedAttention, list[torch.Tensor] | None]:
        """Everything the UNet needs, computed once for all steps.

        Returns:
            the folded attention, to be passed as `cross_attention_kwargs={"ip_hidden_states": ...}` inside `attach`,
            and the residuals, of which every UNet call needs a fresh list (it empties the one it gets).
        """
        folded, apart = self.condition_apart(unet, features, strengths, latent_size, fusion_scale)
        return folded, self.add_residuals(apart)

    def condition_apart(
        self,
        unet: nn.Module,
        features: Features,
        strengths: torch.Tensor,
        latent_size: tuple[int, int],
        fusion_scale: float = 1.0,
    ) -> tuple[FoldedAttention, dict[tuple[str, ...], Residuals]]:
        """As `condition`, with the residuals by the granularities they come from: what `at_step` takes."""
        tokens, apart = self._apart(features, strengths, latent_size, fusion_scale)
        return self.fold(unet, tokens, strengths), apart

    def at_step(
        self, folded: FoldedAttention, apart: dict[tuple[str, ...], Residuals], factors: torch.Tensor
    ) -> tuple[FoldedAttention, Residuals | None]:
        """What the UNet needs in a step whose strengths are those of `condition_apart` times `factors` (G,)."""
        names, tokens = self.config.granularities, self.config.num_tokens
        scaled = {}
        for layer, (key, value, *shares) in folded.items():
            gains = factors.to(value).repeat_interleave(tokens).repeat(value.shape[1] // (len(names) * tokens))
            scaled[layer] = (key, value * gains.unsqueeze(1), *shares)
        gains = {used: float(_joint(factors.unsqueeze(0), names, used)) for used in apart}
        return scaled, self.add_residuals(
            {used: [r * gains[used] for r in residuals] for used, residuals in apart.items()}
        )

    # -- regions ------------------------------------------------------------------------------------------------------
    def in_regions(self, features: Features) -> tuple[list[Features], torch.Tensor | None]:
        """Features in which references have regions, as sets without, and how much of each place is each set's.

        Every combination of a region of one granularity with one of another is a set, as if all the picture were
        conditioned by it; what no region of a granularity covers lacks that granularity. Of color, each set has an
        `area`, so that a palette is laid into its region with all its colors.

        Args:
            features: from `MGEncoder.encode`; of a granularity whose references have regions, a list.

        Returns:
            the sets, and their shares (B, sets, H, W) in [0, 1] that sum to 1; `None` where there are no regions.
        """
        choices = [_choices(name, parts) for name, parts in features.items() if isinstance(parts, list)]
        if not choices:
            return [features], None
        common = {name: parts for name, parts in features.items() if not isinstance(parts, list)}
        sets, shares = [], []
        for chosen in product(*choices):
            share = math.prod(region for _, _, region in chosen)
            if not share.any():
                continue
            own = common | {name: parts for name, parts, _ in chosen if parts is not None}
            if {"color", "shape"} <= set(own):
                painted = [region for name, _, region in chosen if name != "texture"]
                area = math.prod(painted, start=torch.ones_like(share))
                given = own["color"].get("area")
                if given is not None:
                    area = area * F.adaptive_avg_pool2d(given.to(area), area.shape[2:])
                own["color"] = {**own["color"], "area": area + 1e-6}  # not 0 for any sample
            sets.append(own)
            shares.append(share)
        return sets, torch.cat(torch.broadcast_tensors(*shares), 1)

    def join_regions(
        self,
        fused: Sequence[tuple[FoldedAttention, dict[tuple[str, ...], Residuals]]],
        shares: torch.Tensor | None,
        latent_size: tuple[int, int],
    ) -> tuple[FoldedAttention, dict[tuple[str, ...], Residuals]]:
        """One conditioning out of those of several sets: attention and residuals, place by place, in their shares.

        Args:
            fused: by set of `in_regions` what `condition_apart` returns.
            shares: from `in_regions`.
        """
        if shares is None:
            return fused[0]
        pooled = [F.adaptive_avg_pool2d(shares, s) for s in down_block_sizes(self.config.block_strides, *latent_size)]
        joined, apart = {}, {}
        for layer in self.config.attention_layers:
            name, heads = layer["name"], layer["heads"]
            keys, values = zip(*(folded[name] for folded, _ in fused), strict=True)
            key = torch.stack([one.unflatten(2, (heads, -1)) for one in keys], 3).flatten(2)
            value = torch.stack([one.unflatten(1, (heads, -1)) for one in values], 2).flatten(1, 3)
            share = pooled[_level(name, len(pooled))].flatten(2).transpose(1, 2)
            joined[name] = (key, value, share.expand(len(key), -1, -1).to(value.dtype))
        for place, (_, parts) in enumerate(fused):
            for used, residuals in parts.items():
                own = [r * p[:, place : place + 1].to(r) for r, p in zip(residuals, pooled, strict=True)]
                apart[used] = [a + b for a, b in zip(apart[used], own, strict=True)] if used in apart else own
        return joined, apart

    @staticmethod
    def add_residuals(apart: dict[tuple[str, ...], Residuals]) -> Residuals | None:
        """The sum of residuals by where they come from, block by block; `None` where there are none."""
        return [sum(block) for block in zip(*apart.values(), strict=True)] or None

    # -- attaching ----------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def attach(self, unet: nn.Module) -> Iterator[None]:
        """Install the attention processors for the length of a `with` block; they are removed whatever happens."""
        self.check_unet(unet)
        modules = dict(unet.named_modules())
        layers = [(modules[layer["name"]], layer["name"]) for layer in self.config.attention_layers]
        before = [(attn, attn.__dict__.get("processor")) for attn, _ in layers]
        own = [MGAttnProcessor(attn.processor, name, self.config.num_tokens) for attn, name in layers]

        def hand_out(unet: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
            passed = dict(kwargs.get("cross_attention_kwargs") or {})
            folded = passed.pop("ip_hidden_states", {})
            for processor in own:
                processor.folded = folded.get(processor.layer)
            return args, {**kwargs, "cross_attention_kwargs": passed}

        with contextlib.ExitStack() as stack:
            # Blocks that are compiled one by one (`compile_repeated_blocks`) share one graph, which must not depend on the
            # name of a layer: it would be compiled anew for each.
            if any(module._compiled_call_impl is not None for module in unet.modules() if module is not unet):
                stack.callback(unet.register_forward_pre_hook(hand_out, with_kwargs=True).remove)
            stack.callback(_restore_processors, before)
            for (attn, _), processor in zip(layers, own, strict=True):
                # Not `set_processor`: a processor with weights, as of an IP-Adapter, stays a module of the UNet, so that
                # it is moved, offloaded and saved with it; ours only hides it.
                attn.__dict__["processor"] = processor
            yield


def _restore_processors(before: Sequence[tuple[nn.Module, Any]]) -> None:
    """Attention layers with what stood in their `__dict__`; `None` is a processor with weights, which is a submodule."""
    for attn, processor in before:
        attn.__dict__.pop("processor", None)
        if processor is not None:
            attn.__dict__["processor"] = processor


def _joint(strengths: torch.Tensor, granularities: Sequence[str], used: Sequence[str]) -> torch.Tensor:
    """Strength (B,) of what comes from several granularities: the geometric mean, which is 0 when one of them is."""
    columns = [strengths[:, list(granularities).index(name)] for name in used]
    return torch.stack(columns).prod(0) ** (1 / len(columns))


def _choices(
    name: str, parts: list[dict[str, torch.Tensor]]
) -> list[tuple[str, dict[str, torch.Tensor] | None, torch.Tensor]]:
    """What one granularity can be at a place, and where: each of its regional features, or nothing."""
    chosen = [(name, {k: v for k, v in part.items() if k != "region"}, part["region"]) for part in parts]
    rest = (1 - sum(part["region"] for part in parts)).clamp(min=0)
    return chosen + ([(name, None, rest)] if rest.max() > 1e-4 else [])


def _level(layer: str, count: int) -> int:
    """Which of `count` resolutions, finest first, an attention layer of a UNet works at."""
    kind, place, *_ = layer.split(".")
    if kind == "mid_block":
        return count - 1
    return int(place) if kind == "down_blocks" else count - 1 - int(place)


def _attention_layers(unet: nn.Module) -> list[dict[str, Any]]:
    """The cross-attention layers that read the text, in the order of the UNet's modules."""
    return [
        {"name": name, "query_dim": attn.query_dim, "inner_dim": attn.inner_dim, "heads": attn.heads}
        for name, attn in unet.named_modules()
        if name.endswith("attn2")
    ]


def check_weights_in_memory(unet: nn.Module) -> None:
    """Raise a ValueError where group offloading keeps whole blocks on disk; a single layer is loaded when it is called."""
    registries = [getattr(module, "_diffusers_hook", None) for module in unet.modules()]
    hooks = [registry.get_hook("group_offloading") for registry in registries if registry is not None]
    configs = [hook.config for hook in hooks if hook is not None]
    if any(c.offload_to_disk_path is not None and c.offload_type.value == "block_level" for c in configs):
        raise ValueError(
            "The UNet's blocks are offloaded to disk, where the adapter cannot read their projections. Use "
            '`offload_type="leaf_level"`, or leave `offload_to_disk_path` out.'
        )


def effective_weight(linear: nn.Module, in_features: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """The matrix (out, in) a projection applies in `dtype`, adapters such as LoRA included, on `device`."""
    reference = next(linear.parameters(), None)  # a module that torch quantized has none
    is_meta = reference is not None and reference.is_meta
    is_plain = type(linear) is nn.Linear and type(linear.weight) is nn.Parameter and linear.weight.dtype == dtype
    if is_plain and not is_meta and not hasattr(linear, "_diffusers_hook"):
        return linear.weight.to(device)  # elsewhere where the model is offloaded
    # Read by what it does. Quantized weights are stored in another form or type; what is offloaded layer by layer is
    # there only during a call, on the device that computes.
    place = device if reference is None or is_meta else reference.device
    identity = torch.eye(in_features, dtype=dtype, device=place)
    return (linear(identity) - linear(torch.zeros_like(identity[:1]))).T.to(device)
