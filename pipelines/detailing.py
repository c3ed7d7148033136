"""Octaves above what the UNet paints, by a detail network: sizes, and the larger picture."""

import math
import warnings
from types import SimpleNamespace
from typing import Any

import torch

from ..arrays import whole_number
from ..features import has_layout
from ..octaves import STEPS, build_scheduler, paint_octaves
from ..sizes import check_painted_size, is_side, nearest_painted_size, octaves_to
from .components import AUTO, reads_guidance
from .references import first_picture_size


FEW_DETAIL_STEPS = 3  # of an octave above a distilled UNet
SLOW_PIXELS = 1024**2  # more of them take long without a GPU: 1280 x 832 took 46 s on one core


class Detailed:
    """What an optional `mg_detail` does in a call: pictures of twice, four, eight times the size of those of the UNet."""

    def sizes(self, given: SimpleNamespace, edit: Any = None) -> tuple[tuple[int, int], tuple[int, int] | None]:
        """(height, width) of what the UNet paints, and of the output where octaves lead to it.

        Raises:
            ValueError: for a size that cannot be.
        """
        height, width = self.output_size(given.height, given.width, given.reference_image)
        if self.mg_detail is None:
            return (height, width), None
        octaves, _ = self.octaves(height, width)
        check_painted_size(height, width, *self._octave_rule)
        return (height >> octaves, width >> octaves), (height, width)

    def octaves(self, height: float, width: float) -> tuple[int, int]:
        """How many octaves lead to a size in pixels, and what its sides must be multiples of."""
        return octaves_to(height, width, *self._octave_rule)

    @property
    def _octave_rule(self) -> tuple[tuple[int, int], int, int]:
        """What sizes depend on, as `octaves_to` takes it."""
        halvings = 2 ** (len(self.mg_detail.config.block_out_channels) - 1)
        return self.default_size(None, None), self.vae_scale_factor, halvings

    def output_size(
        self,
        height: int | None,
        width: int | None,
        reference_image: dict[str, Any] | None = None,
        side: int | None = None,
        aspect: float | None = None,
    ) -> tuple[int, int]:
        """A size in pixels, or what stands for it: the detail network's own, in the aspect of the shape reference.

        A side that comes alone takes the other from that aspect, with a detail network and without. Where no aspect is
        known, a side that is missing is the model's own.

        Args:
            side: of a square of about the same area, in place of a size, with a detail network and without.
            aspect: width over height, at most 4 either way; a square where `side` comes without it and without a shape.
        """
        given = [one for one in (height, width) if one is not None]
        if len(given) == 2 or (self.mg_detail is None and not given and side is None):
            return self.default_size(height, width)
        if aspect is None and (shown := first_picture_size((reference_image or {}).get("shape"))) is not None:
            aspect = shown[1] / shown[0]
        if aspect is None and side is not None:
            aspect = 1.0
        if aspect is None or not all(is_side(one) for one in given):  # which is refused later
            native = self.default_size(None, None) if self.mg_detail is None else [self.detail_side] * 2
            return native[0] if height is None else height, native[1] if width is None else width
        aspect = min(4.0, max(0.25, aspect))
        if not given:
            area = (side or self.detail_side) ** 2
            wanted = (math.sqrt(area / aspect), math.sqrt(area * aspect))
        else:
            wanted = (width / aspect, width) if height is None else (height, height * aspect)
        if self.mg_detail is not None:
            found = nearest_painted_size(wanted, *self._octave_rule, given=(height, width))
            if found is not None:
                return found
        unit = self.vae_scale_factor if self.mg_detail is None else self.octaves(*wanted)[1]
        chosen = (max(unit, unit * round(one / unit)) for one in wanted)
        return tuple(near if one is None else one for one, near in zip((height, width), chosen, strict=True))

    @property
    def detail_side(self) -> int:
        """Side in pixels of a square of the detail network's own area."""
        return 2 * self.mg_detail.config.sample_size

    def check_layout(self, given: SimpleNamespace, output_size: tuple[int, int] | None) -> None:
        """Raise a ValueError for an unknown assignment, steps that cannot be, or features of another size.

        Warns of a size that takes long.
        """
        steps = getattr(given, "num_detail_steps", 1)
        if isinstance(steps, str) and steps == AUTO:
            steps = FEW_DETAIL_STEPS if reads_guidance(self.unet) else STEPS
        most = build_scheduler().config.num_train_timesteps
        given.num_detail_steps = whole_number(steps) or 0
        if not 1 <= given.num_detail_steps <= most:
            raise ValueError(f"`num_detail_steps` must be an integer from 1 to {most}, got {steps!r}.")
        if output_size and math.prod(output_size) > SLOW_PIXELS and self._execution_device.type == "cpu":
            warnings.warn(
                f"A picture of {output_size[1]} x {output_size[0]} may take a minute or more on a CPU; the time grows with "
                f"the number of pixels.",
                stacklevel=2,
            )
        if not isinstance(given.assignment, str) or given.assignment not in ("light", "free"):
            raise ValueError(f'`assignment` must be "light" or "free", got {given.assignment!r}.')
        for name, parts in (given.reference_embeds or {}).items():
            if output_size is not None and not all(has_layout(name, part, output_size) for part in parts):
                raise ValueError(
                    f"The {name} features were made for pictures of another size than {output_size[1]} x {output_size[0]}. "
                    f"Make them anew with `encode_reference(..., height={output_size[0]}, width={output_size[1]})`."
                )

    def paint_detail(
        self,
        call: Any,
        image: torch.Tensor,
        known: tuple[torch.Tensor, torch.Tensor] | None = None,
        kept: float = 0.0,
    ) -> torch.Tensor:
        """From pictures (B, 3, h, w) in [-1, 1] of the UNet to those of the call's output size.

        Args:
            known, kept: as of `paint_octaves`, for edits.
        """
        given, unet = call.given, self.mg_detail
        image = image.clamp(-1, 1).to(self._execution_device, unet.dtype)
        layout = None if call.conditioning is None else call.conditioning.layout
        layout = layout and layout.completed(image)
        if layout is None:
            blank = image.new_zeros(len(image), 1, *call.output_size)
            canvas, canvas_scale, sketch, sketch_scale = blank, blank, blank.expand(-1, 3, -1, -1), blank
        else:
            canvas, canvas_scale, sketch = layout.canvas, layout.canvas_scale, layout.sketch
            sketch_scale = layout.sketch_scale.clamp(max=1)  # how far it is to be believed
        return paint_octaves(
            unet,
            build_scheduler(),
            image,
            canvas.to(image),
            sketch.to(image),
            canvas_scale.to(image),
            sketch_scale.to(image),
            num_inference_steps=given.num_detail_steps,
            generator=call.detail_generator,
            known=None if known is None else tuple(one.to(image) for one in known),
            kept=kept,
        )
