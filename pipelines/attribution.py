"""How much each granularity moved the prediction, and whether an output has the shape of another reference."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch

from .references import has_region, shows_a_picture


class Attributed:
    """Attribution and the guard against leaks of shape."""

    def check_leak_guard(
        self, leak_guard: bool, reference_image: dict[str, Any] | None, output_type: str
    ) -> dict[str, Any] | None:
        """The references by which `warn_of_leaks` tells whose shape an output has; `None` where it is not asked for.

        Raises:
            ValueError: for latents as output, and if there are no pictures to compare: one that lends its shape, and one
                that lends something else.
        """
        if not leak_guard:
            return None
        given = {name: one for name, one in (reference_image or {}).items() if one is not None}
        if output_type == "latent":
            raise ValueError('`leak_guard` looks at pictures; with `output_type="latent"` there are none.')
        is_picture = {name: shows_a_picture(one) and not has_region(one) for name, one in given.items()}
        compared = {name: given[name] for name in given if is_picture[name]}
        images = {name: one.get("image") if isinstance(one, dict) else one for name, one in compared.items()}
        # A picture that lends its shape as well cannot leak it.
        compared = {n: one for n, one in compared.items() if n == "shape" or images[n] is not images.get("shape")}
        if "shape" not in compared or len(compared) < 2 or self.mg_encoder is None:
            raise ValueError(
                f"`leak_guard` compares the shape of the output with that of pictures: it needs a shape reference, and a "
                f"color or texture reference, as pictures without regions. Of what is given, {sorted(compared)} are such."
            )
        return compared

    def attribute(
        self,
        names: Sequence[str],
        differences: Sequence[torch.Tensor],
        region: tuple[float, float, float, float] | None = None,
    ) -> dict[str, dict[str, torch.Tensor]]:
        """How much each granularity moved the prediction of the UNet, from what `predict_noise` recorded.

        Args:
            names: of the contrasts; differences: by step (contrasts, B, h, w).
            region: (left, top, right, bottom) of what was computed, in fractions of the picture, where that is a part of it.

        Returns:
            {granularity: {"map": (B, h, w), "curve": (B, steps)}}, root mean squares over channels and steps, or over
            channels and places, in units of the prediction; and "region": (4,) where there is one.
        """
        if not differences:
            return {}
        squares = torch.stack(list(differences), 2).float().cpu().square()
        maps, curves = squares.mean(2).sqrt(), squares.mean((3, 4)).sqrt()
        where = {} if region is None else {"region": torch.tensor(region, dtype=torch.float32)}
        return {name: {"map": maps[place], "curve": curves[place], **where} for place, name in enumerate(names)}

    def warn_of_leaks(
        self,
        image: torch.Tensor,
        compared: dict[str, Any],
        batch_size: int,
        num_images_per_prompt: int,
        mask: torch.Tensor | None = None,
    ) -> None:
        """Warn where an output follows the shape of its color or texture reference more than that of its shape reference.

        Args:
            image: (B, 3, H, W) in [0, 1]; compared: from `check_leak_guard`; mask: (B, 1, H, W), where the output counts.
        """
        size = tuple(image.shape[2:])
        distances = {}
        for name, reference in compared.items():
            targets = self.mg_encoder.guidance_targets(
                self.mg_encoder.encode({"shape": reference}, size, batch_size), size
            )["shape"].to(image.device, torch.float32)
            targets = targets.repeat_interleave(num_images_per_prompt if len(targets) > 1 else 1, dim=0)
            found = self.mg_encoder.feature_distances(image.float(), {"shape": targets}, mask)
            distances[name] = found["shape"].tolist()
        for name in [name for name in distances if name != "shape"]:
            for index, (other, own) in enumerate(zip(distances[name], distances["shape"], strict=True)):
                if other < own:
                    warnings.warn(
                        f"The shape of output {index} follows its {name} reference more than its shape reference: "
                        f"{1 - other:.2f} of its color variance against {1 - own:.2f}. Lower the strength of {name}, or "
                        f"raise that of shape.",
                        stacklevel=7,
                    )
