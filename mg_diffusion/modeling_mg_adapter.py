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

What ships is one file, bundled from this one and `adapter/` (`mg_diffusion.bundling`).
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from torch import nn

from .adapter.attachment import attached, check_free
from .adapter.attention import FoldedAttention, attention_layers_of, check_weights_in_memory, effective_weight
from .adapter.bases import base_in_words, first_difference
from .adapter.blocks import BlockScales, parse_blocks
from .adapter.conditioning import Conditioning, Fused, stack_rows
from .adapter.deprecated import DeprecatedNames
from .adapter.layers import (
    CanvasResiduals,
    Fusion,
    Residuals,
    ShapeResiduals,
    TokenProjection,
    down_block_sizes,
    zero_module,
)
from .adapter.layout import join_layouts, lay_out
from .adapter.quilting import lay_tiles
from .adapter.regions import join_regions
from .adapter.sets import split_regions
from .adapter.sketch import lay_palette, turn_colors
from .adapter.strengths import Curve, joint_strength, parse_schedule, parse_strengths
from .adapter.variation import apply_variation, draw_variation
from .encoder.remembered import Remembered
from .features import Features, FeatureSet, as_lists, match_rows
from .granularities import GRANULARITIES
from .model_files import SavedWithCode, registered


class MGAdapter(SavedWithCode, DeprecatedNames, ModelMixin, ConfigMixin):
    """The trained, separately saved part: tokens, fusion and residuals for one kind of UNet.

    Build it with `MGAdapter.from_unet(unet, encoder)`. At inference the pipelines call `assemble_conditioning` once and run
    the denoising loop inside `with adapter.attach(unet)`.

    Args:
        granularities: names in the order of the tokens.
        vector_sizes: {granularity: length of the encoder's pooled vector}.
        map_channels: widths of the encoder's shape pyramid, finest first.
        attention_layers: the UNet's cross-attention layers, [{"name", "query_dim", "inner_dim", "heads"}, ...].
        block_channels, block_strides: channels and stride of the residual of every down block.
        num_tokens: tokens per granularity; equal, so that one matrix product serves all.
        token_dim: width of a token.
        map_stride: encoder pixels per latent cell of the shape map and the texture canvas.
        canvas_gain: contrast of the canvas of a larger picture after it was shrunk, which leaves little of it.
    """

    # Layers are used one by one, outside of `forward`, and an `nn.MultiheadAttention` reads its last projection's
    # weights without calling it: hooks of group offloading would not see either, nor layerwise casting the latter.
    _supports_group_offloading = False
    _skip_layerwise_casting_patterns = ["fusion"]

    @registered
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
        canvas_gain: float = 1.3,
    ):
        super().__init__()
        unknown = [name for name in granularities if name not in GRANULARITIES or name not in vector_sizes]
        if unknown or not granularities:
            raise ValueError(
                f"granularities must be some of {GRANULARITIES}, each with its length in vector_sizes, got "
                f"{tuple(granularities)} with {dict(vector_sizes)}."
            )
        self.remembered = Remembered()  # canvases and sketches, which know nothing of the weights
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
        kinds, layers = set(unet.config.down_block_types), attention_layers_of(unet)
        if not layers or not kinds <= {"CrossAttnDownBlock2D", "DownBlock2D"}:
            raise ValueError(
                f"An MGAdapter needs a UNet with cross-attention and with down blocks CrossAttnDownBlock2D or DownBlock2D, "
                f"as those of Stable Diffusion 1, 2 and XL; this one has {len(layers)} cross-attention layers and "
                f"{sorted(kinds)}."
            )
        # A CrossAttnDownBlock2D adds its residual before it downsamples, a DownBlock2D after; the last one does not.
        kinds, last = unet.config.down_block_types, len(unet.config.down_block_types) - 1
        after = [kind == "DownBlock2D" and level < last for level, kind in enumerate(kinds)]
        arguments = {
            "granularities": tuple(sizes),
            "vector_sizes": sizes,
            "map_channels": encoder.map_channels,
            "attention_layers": layers,
            "block_channels": tuple(unet.config.block_out_channels),
            "block_strides": tuple(2 ** (level + is_after) for level, is_after in enumerate(after)),
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
        found, expected = attention_layers_of(unet), [dict(layer) for layer in self.config.attention_layers]
        blocks = tuple(unet.config.block_out_channels)
        if found != expected or blocks != tuple(self.config.block_channels):
            width = unet.config.get("cross_attention_dim")
            raise ValueError(
                f"This MGAdapter does not fit the UNet: it was made for "
                f"{base_in_words(expected, self.config.block_channels)}, the UNet is that of "
                f"{base_in_words(found, blocks, width)}{first_difference(expected, found)}. Use the base it was trained on, "
                f"an adapter of this one, or train one with MGAdapter.from_unet(unet, encoder)."
            )

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the shape map, in encoder pixels, for latents of height x width: the `size` of `MGEncoder.encode`."""
        return height * self.config.map_stride, width * self.config.map_stride

    @property
    def is_untrained(self) -> bool:
        """Whether nothing was learned: all that a new adapter adds to a UNet is zero."""
        outs = [parameter for values in self.to_v for parameter in values.parameters()]
        outs += [parameter for name, parameter in self.named_parameters() if ".outs." in name]
        return not any(bool(parameter.any()) for parameter in outs)

    def strengths(self, granularity_scale: Any, batch_size: int = 1) -> torch.Tensor:
        """`granularity_scale` of a pipeline call to a tensor (batch_size, G); see `parse_strengths`."""
        return parse_strengths(granularity_scale, self.config.granularities, batch_size)

    def block_scales(self, granularity_scale: Any) -> BlockScales | None:
        """The dicts of blocks in `granularity_scale` of a pipeline call; see `parse_blocks`."""
        config = self.config
        return parse_blocks(
            granularity_scale, config.granularities, config.attention_layers, len(config.block_strides)
        )

    def schedule(self, granularity_schedule: dict[str, Curve], steps: int) -> torch.Tensor:
        """`granularity_schedule` of a pipeline call to factors (steps, G); see `parse_schedule`."""
        return parse_schedule(granularity_schedule, self.config.granularities, steps)

    # -- step 3: fuse -------------------------------------------------------------------------------------------------
    def forward(
        self, features: Features, strengths: torch.Tensor, latent_size: tuple[int, int], fusion_scale: float = 1.0
    ) -> tuple[torch.Tensor, Residuals | None]:
        """F = phi(X; theta).

        Args:
            features: from `MGEncoder`, without regions, batch dimension 1 or B; a missing granularity is absent.
            strengths: (B, G) at least 0.
            latent_size: (height, width) of the latents.
            fusion_scale: multiplies alpha; 0 is no mixing across granularities.

        Returns:
            fused tokens (B, G, num_tokens, token_dim), and one residual (B, C_l, H_l, W_l) per down block, strength
            included, or `None` when neither shape nor texture is given.
        """
        own = {name: parts[0] for name, parts in as_lists(features).items()}
        tokens, residuals = self._fuse(own, strengths, latent_size, fusion_scale)
        return tokens, Fused({}, residuals).total()

    def _fuse(
        self, features: FeatureSet, strengths: torch.Tensor, latent_size: tuple[int, int], fusion_scale: float
    ) -> tuple[torch.Tensor, dict[tuple[str, ...], Residuals]]:
        """As `forward`, of one entry of each granularity, with the residuals by the granularities they come from."""
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
        residuals = {}
        for used, blocks in self._residuals(features, tokens, sizes):
            strength = joint_strength(strengths, names, used).to(self.dtype).view(-1, 1, 1, 1)
            residuals[used] = [block * strength for block in blocks]
        return tokens, residuals

    def _residuals(
        self, features: FeatureSet, tokens: torch.Tensor, sizes: list[tuple[int, int]]
    ) -> Iterator[tuple[tuple[str, ...], Residuals]]:
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
            yield ("texture",), self.texture_residuals(self._canvas(features["texture"], canvas_size), sizes)
        if "color" in features and "shape" in features:
            sketch = self.sketch(features, canvas_size)
            middle = sketch.new_tensor([50.0, 0.0, 0.0]).view(1, 3, 1, 1)
            yield ("color", "shape"), self.sketch_residuals(((sketch - middle) / 50.0).to(self.dtype), sizes)

    def _canvas(self, texture: dict[str, torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """Tiles, quilted (B, 1, *size); or the canvas of a larger picture, shrunk."""
        if "canvas" not in texture:
            return lay_tiles(texture["tiles"], *size)
        return self.config.canvas_gain * F.adaptive_avg_pool2d(texture["canvas"], size)

    def sketch(self, features: FeatureSet, size: tuple[int, int]) -> torch.Tensor:
        """Which color goes where, (B, 3, *size) in Lab: the palette laid into the regions, or what context knows.

        Args:
            features: one entry of each granularity. Of color, an optional `area` (B, 1, H, W) says where the palette
                goes, see `lay_palette`; of shape, an optional `sketch` (B, 3, H, W) is taken in its place, where there
                is a `has_sketch` (B,) for these samples alone.
        """
        shape, known = features["shape"], None
        if "sketch" in shape:
            known = F.adaptive_avg_pool2d(shape["sketch"], size)
            if "has_sketch" not in shape:
                return known
        structure = F.adaptive_avg_pool2d(shape["structure"], size)
        area = features["color"].get("area")
        area = area if area is None else F.adaptive_avg_pool2d(area, size)
        laid = lay_palette(structure, features["color"]["palette"], area)
        return laid if known is None else torch.where(shape["has_sketch"].view(-1, 1, 1, 1), known, laid)

    def fold(
        self,
        unet: nn.Module,
        tokens: torch.Tensor,
        strengths: torch.Tensor,
        block_scales: BlockScales | None = None,
    ) -> FoldedAttention:
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
            own = strengths if block_scales is None else strengths * block_scales.layers[layer["name"]].to(strengths)
            values = values * own.to(values.dtype)[:, :, None, None]
            query = effective_weight(attn.to_q, layer["query_dim"], keys.device, dtype)
            query = query.unflatten(0, (heads, -1))  # (h, d, c)
            output = effective_weight(attn.to_out[0], layer["inner_dim"], keys.device, dtype)
            output = output.unflatten(1, (heads, -1))  # (c, h, d)
            keys, values = (x.flatten(1, 2).unflatten(2, (heads, -1)) for x in (keys, values))  # (b, gt, h, d)
            key = torch.einsum("bthd,hdc->bcht", keys.to(query.dtype), query * attn.scale).flatten(2)
            value = torch.einsum("bthd,chd->bhtc", values.to(output.dtype), output).flatten(1, 2)
            folded[layer["name"]] = (key, value)
        return folded

    # -- the conditioning of a UNet -----------------------------------------------------------------------------------
    def condition(
        self,
        unet: nn.Module,
        features: Features,
        strengths: torch.Tensor,
        latent_size: tuple[int, int],
        fusion_scale: float | torch.Tensor = 1.0,
    ) -> tuple[FoldedAttention, Residuals | None]:
        """What the UNet needs, of features as they are: nothing is drawn, and all of it counts in every step.

        Returns:
            the folded attention, to be passed as `cross_attention_kwargs={"ip_hidden_states": ...}` inside `attach`,
            and the residuals, of which every UNet call needs a fresh list (it empties the one it gets), in the type of
            the adapter.
        """
        features = as_lists(features)
        assembled = self.assemble_conditioning(unet, features, strengths, latent_size, fusion_scale, is_settled=True)
        return assembled.at_step()

    def assemble_conditioning(
        self,
        unet: nn.Module,
        features: Features,
        strengths: torch.Tensor,
        latent_size: tuple[int, int],
        fusion_scale: float | torch.Tensor = 1.0,
        *,
        contrasts: Sequence[tuple[str, Features | None]] = (),
        factors: torch.Tensor | None = None,
        is_unconditional: bool = False,
        generator: torch.Generator | list[torch.Generator] | None = None,
        is_settled: bool = False,
        layout_size: tuple[int, int] | None = None,
        assignment: str = "light",
        block_scales: BlockScales | None = None,
    ) -> Conditioning | None:
        """Everything the UNet needs beside the text, for all steps: the one place where it is put together.

        Args:
            features: from `MGEncoder`, of batch 1 or one that divides B.
            strengths: (B, G) at least 0, B the number of pictures.
            latent_size: (height, width) of the latents.
            fusion_scale: of all samples, or (B, 1, 1, 1).
            contrasts: for each further B rows, a granularity and its features there; `None` leaves it out.
            factors: (steps, G) of the strengths, where these change over the steps.
            is_unconditional: whether B rows of the base model come first, as for classifier-free guidance.
            generator: draws what the references leave open, see `draw_variation`.
            is_settled: whether nothing is left open. (Of shape, a `turn` (B, 3, 3) says which region gets which color.)
            layout_size: (height, width) in pixels of a larger picture that octaves make of what the UNet paints, of which
                the features know (`MGEncoder.encode`); canvas and sketch are laid once, at that size.
            assignment: of colors to regions, see `apply_variation`.
            block_scales: factors of the strengths by block of the UNet; a layout has the strengths as they are.

        Returns:
            rows in the order unconditional, contrasts, conditional; `None` where nothing has any strength.
        """
        count = len(strengths)
        if not is_settled:
            place = count, self.device, self.dtype
            features = {name: [match_rows(part, *place) for part in parts] for name, parts in features.items()}
            contrasts = [(n, given and {n: [match_rows(given[n][0], *place)]}) for n, given in contrasts]
        variants, shares = self._variants(features, strengths, contrasts)
        if is_settled:
            variants = [[(_settled(own), present) for own, present in row] for row in variants]
        elif any(present.any() for row in variants for _, present in row):
            every = {name: parts for row in variants for own, _ in row for name, parts in own.items()}
            drawn = draw_variation(every, count, generator)
            variants = [
                [(apply_variation(own, count, drawn, assignment), present) for own, present in row] for row in variants
            ]
        else:
            return None  # before anything is drawn: what else the generator is for goes on as without references
        sizes, layout, start = down_block_sizes(self.config.block_strides, *latent_size), None, None
        if layout_size is not None:
            variants = [
                [(lay_out(own, layout_size, self.remembered), present) for own, present in row] for row in variants
            ]
            laid = [
                join_layouts(
                    self._at_step(variants[-1], factors, step), shares, self.config.granularities, layout_size
                )
                for step in ((-1,) if factors is None else (-1, 0))
            ]
            layout, start = laid[0], laid[-1]

        def fuse(is_on: torch.Tensor) -> Fused:
            rows = []
            for row in variants:
                fused = []
                for own, present in row:
                    there = present * is_on.to(present)
                    tokens, residuals = self._fuse(own, there, latent_size, fusion_scale)
                    residuals = residuals if block_scales is None else self._by_block(residuals, block_scales)
                    fused.append(Fused(self.fold(unet, tokens, there, block_scales), residuals))
                rows.append(join_regions(fused, shares, self.config.attention_layers, sizes))
            return rows[0] if is_settled and len(rows) == 1 else stack_rows(rows, is_unconditional, unet.dtype)

        names = list(self.config.granularities)
        is_on = torch.ones(1, len(names), dtype=torch.float32) if factors is None else (factors > 0).unique(dim=0)
        fused = {tuple(bool(on) for on in row): fuse(row) for row in is_on}
        return Conditioning(names, self.config.num_tokens, fused, factors, layout, start)

    def _by_block(
        self, residuals: dict[tuple[str, ...], Residuals], block_scales: BlockScales
    ) -> dict[tuple[str, ...], Residuals]:
        """Residuals by the granularities they come from, each times the factor of its down block."""
        names = self.config.granularities
        factors = {used: joint_strength(block_scales.down_blocks, names, used).tolist() for used in residuals}
        return {
            used: [block * factor for block, factor in zip(blocks, factors[used], strict=True)]
            for used, blocks in residuals.items()
        }

    @staticmethod
    def _at_step(
        row: list[tuple[FeatureSet, torch.Tensor]], factors: torch.Tensor | None, step: int
    ) -> list[tuple[FeatureSet, torch.Tensor]]:
        """Sets with the strengths that they have in a step: a composed start is of the first, octaves go on with the last."""
        return row if factors is None else [(own, present * factors[step].to(present)) for own, present in row]

    def _variants(
        self,
        features: Features,
        strengths: torch.Tensor,
        contrasts: Sequence[tuple[str, Features | None]],
    ) -> tuple[list[list[tuple[FeatureSet, torch.Tensor]]], torch.Tensor | None]:
        """By rows of `assemble_conditioning`, each set of `split_regions` with its strengths, and the sets' shares."""
        names = list(self.config.granularities)
        negatives = {name: parts[name][0] for name, parts in contrasts if parts is not None}
        sets, shares = split_regions(features)

        def variant(given: FeatureSet, name: str | None) -> tuple[FeatureSet, torch.Tensor]:
            """One set without the granularity `name`, or with its negative reference, and the strengths there."""
            own = {key: parts for key, parts in given.items() if key != name}
            own |= {name: negatives[name]} if name in negatives else {}
            if name == "color" and "shape" in own:  # a sketch that context knows has colors of its own
                own["shape"] = {key: value for key, value in own["shape"].items() if key != "sketch"}
            # What is not given has no strength, so that nothing is attached where nothing is given.
            present = strengths * strengths.new_tensor([key in own for key in names])
            if name in negatives:  # what is avoided is so in full, whatever the strength of what is not
                present[:, names.index(name)] = 1.0
            return own, present.to(self.device)

        rows = [*(name for name, _ in contrasts), None]
        return [[variant(given, name) for given in sets] for name in rows], shares

    # -- attaching ----------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def attach(self, unet: nn.Module) -> Iterator[None]:
        """Install the attention processors for the length of a `with` block; they are removed whatever happens.

        Several threads may be at work on one UNet: the last one takes them away.

        Raises:
            ValueError: if the adapter was made for another UNet, or another adapter is at work that differs too much.
            RuntimeError: if the UNet's blocks are compiled one by one, and another thread is at work with them.
        """
        self.check_unet(unet)
        with attached(unet, [layer["name"] for layer in self.config.attention_layers], self.config.num_tokens):
            yield

    def check_free(self, unet: nn.Module) -> None:
        """Raise what `attach` would where another thread is at work, before anything is computed."""
        check_free(unet, self.config.num_tokens)


def _settled(features: FeatureSet) -> FeatureSet:
    """Features whose structure map is in the false colors that its `turn` says."""
    shape = dict(features.get("shape", {}))
    if "turn" not in shape:
        return features
    shape["structure"] = turn_colors(shape["structure"], shape.pop("turn"))
    return {**features, "shape": shape}
