"""Editing inside a mask: what surrounds it lends what no reference gives, what is outside comes back bit for bit."""

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import PIL.Image
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionInpaintPipeline
from diffusers.utils.torch_utils import randn_tensor

from ..sizes import MAX_ASPECT
from .components import check_scale, is_finite
from .generating import forked
from .pictures import crop_alike, feathered, list_images, list_masks, resize, to_tensor
from .references import given_references
from .schedulers import check_noising


MOST_SIDE = 512  # of a square with the area of what octaves lead to by themselves
CONTEXT_TEXTURE = 0.5  # strength of the surroundings' texture: a tile of it may hold a thing, such as a face


@dataclass
class Edit:
    """The picture of a call that edits, and what is kept of it.

    Args:
        images, masks: as they are given, one by one.
        is_resized: whether both are brought to the size of the call, which is then that of the result.
        original: (1 or B', 3, H, W) in [0, 1]; mask_image: (1 or B', 1, H, W), 1 is repainted. B' divides the number of
            pictures.
        region: (left, top, right, bottom) in pixels of `original`, what is computed.
        init_image: (1 or B', 3, h, w) in [-1, 1] and init_mask: (1 or B', 1, h, w), the region at the size of the call.
        output_image, output_mask: the same at the size that octaves lead to; without octaves, these.
        is_blended: whether what is kept is put back after every step, because the UNet does not read it.
        image_latents: (B, C, h, w), of what is kept, where it is needed.
        is_continued: (B',) bool, whose edge fades into a continuation of the surroundings.
    """

    images: list[PIL.Image.Image | torch.Tensor]
    masks: list[torch.Tensor]
    is_resized: bool
    original: torch.Tensor | None = None
    mask_image: torch.Tensor | None = None
    region: tuple[int, int, int, int] | None = None
    init_image: torch.Tensor | None = None
    init_mask: torch.Tensor | None = None
    output_image: torch.Tensor | None = None
    output_mask: torch.Tensor | None = None
    is_blended: bool = False
    image_latents: torch.Tensor | None = None
    is_continued: torch.Tensor | None = None

    @property
    def share(self) -> tuple[float, float, float, float] | None:
        """(left, top, right, bottom) of what is computed, in fractions of the picture; `None` where that is all of it."""
        height, width = self.original.shape[2:]
        left, top, right, bottom = self.region
        found = (left / width, top / height, right / width, bottom / height)
        return None if found == (0, 0, 1, 1) else found


class Editing:
    """The source of a call that edits: a picture and a mask."""

    def sizes(
        self, given: SimpleNamespace, edit: Edit | None = None
    ) -> tuple[tuple[int, int], tuple[int, int] | None]:
        """(height, width) of what the UNet paints, and of what octaves lead to: about that of what is repainted.

        With a size, that is what octaves lead to; without one they end at the region's own size, or at `MOST_SIDE`.
        """
        if self.mg_detail is None or getattr(given, "latents", None) is not None:
            return self.default_size(given.height, given.width), None
        if given.height is not None or given.width is not None:
            # A shape reference is laid over what is repainted: its aspect says nothing of a side that is missing.
            return super().sizes(SimpleNamespace(height=given.height, width=given.width, reference_image=None), edit)
        if edit is None or any(one.shape[1:] != edit.masks[0].shape[1:] for one in edit.masks):
            return self.default_size(None, None), None  # masks of several sizes are refused later
        native = self.default_size(None, None)
        left, top, right, bottom = self.crop_region(torch.stack(edit.masks), *native, given.padding_mask_crop)
        width, height = right - left, bottom - top
        least = math.sqrt(math.prod(native))
        side = min(MOST_SIDE, max(least, math.sqrt(width * height)))
        size = self.output_size(None, None, None, round(side), width / height)
        return super().sizes(SimpleNamespace(height=size[0], width=size[1], reference_image=None), edit)

    def read_source(self, given: SimpleNamespace) -> Edit:
        is_resized = given.padding_mask_crop is None and not (given.height is None and given.width is None)
        edit = Edit(list_images(given.image), list_masks(given.mask_image), is_resized)
        for name, entries in (("image", edit.images), ("mask_image", edit.masks)):
            if not entries:
                raise ValueError(
                    f"`{name}` is an empty list, so there is nothing to edit. Pass one, or one for each prompt."
                )
        return edit

    def check_inputs(self, given: SimpleNamespace, height: int, width: int, batch_size: int) -> None:
        """As of all calls; and what is computed has to have a form that references are read in, where it lends any."""
        super().check_inputs(given, height, width, batch_size)
        references = given_references(given.reference_image, given.reference_embeds)
        lent = [name for name in self.context_granularities(given) if name not in references]
        if lent and max(height, width) > MAX_ASPECT * min(height, width):
            raise ValueError(
                f"What surrounds the mask lends its {lent}, and what is computed, {width} x {height}, is too long and narrow to "
                f"be read (at most {MAX_ASPECT:.0f}:1). Pass `context_scale=0`, or another `height` and `width`."
            )

    def check_source(self, given: SimpleNamespace, edit: Edit, batch_size: int) -> None:
        """Raise a ValueError for pictures and masks that do not go together, and for strengths and widths out of range."""
        images, masks, strength = edit.images, edit.masks, given.strength
        for name, entries in (("image", images), ("mask_image", masks)):
            if len(entries) not in (1, batch_size):
                raise ValueError(f"`{name}` holds {len(entries)} pictures; this call needs 1 or {batch_size}.")
        sizes = [image.size[::-1] if isinstance(image, PIL.Image.Image) else image.shape[1:] for image in images]
        for index in range(max(len(images), len(masks))):
            found, wanted = tuple(masks[index % len(masks)].shape[1:]), tuple(sizes[index % len(sizes)])
            if found != wanted:
                raise ValueError(
                    f"`mask_image` must have the size of `image`, (height, width) = {wanted}, got {found}. Resize it "
                    f"with nearest-neighbor interpolation."
                )
        if len({tuple(size) for size in sizes}) > 1 and not edit.is_resized:
            raise ValueError(
                f"Pictures of one call must have one size, got {sizes}. Pass `height` and `width`, or call one by one."
            )
        if not is_finite(strength) or not 0 < strength <= 1:
            raise ValueError(f"`strength` must be above 0 and at most 1, got {strength!r}.")
        if strength < 1 or self.unet.config.in_channels == self.vae.config.latent_channels:
            check_noising(self.scheduler, "This edit")

    def context_granularities(self, given: SimpleNamespace) -> tuple[str, ...]:
        """The granularities that the surroundings can stand in for."""
        is_read = (
            check_scale("context_scale", given.context_scale) > 0
            and self.mg_adapter is not None
            and self.mg_encoder is not None
        )
        return tuple(self.mg_adapter.config.granularities) if is_read else ()

    def set_timesteps(self, given: SimpleNamespace) -> tuple[torch.Tensor, int]:
        """Timesteps of the run and how many steps it counts, those that `strength` leaves."""
        _, steps = super().set_timesteps(given)
        timesteps, steps = StableDiffusionInpaintPipeline.get_timesteps(
            self, steps, given.strength, self._execution_device
        )
        if steps < 1 or not len(timesteps):  # schedulers of several evaluations a step count both
            raise ValueError(f"At `strength` {given.strength} no step is left. Raise it, or `num_inference_steps`.")
        return timesteps, steps

    def prepare_source(self, call: Any) -> None:
        """The picture: what is kept, and what is computed."""
        edit, given, (height, width) = call.edit, call.given, call.size
        size = (call.output_size or call.size) if edit.is_resized else None
        edit.original = torch.stack([to_tensor(one, size) for one in edit.images])
        masks = [one if size is None else F.adaptive_max_pool2d(one, size) for one in edit.masks]
        edit.mask_image = torch.stack(masks)
        edit.region = self.crop_region(edit.mask_image, height, width, given.padding_mask_crop)
        if given.padding_mask_crop is not None:  # what lies over what is computed
            given.control_image, given.t2i_image = (
                crop_alike(image, edit.region, edit.original.shape[2:])
                for image in (given.control_image, given.t2i_image)
            )
        left, top, right, bottom = edit.region
        computed = resize(edit.original[:, :, top:bottom, left:right], height, width)
        # The memory layout that diffusers gives pictures: convolutions then agree with its pipelines to the last bit.
        edit.init_image = (2 * computed - 1).contiguous(memory_format=torch.channels_last)
        hole = edit.mask_image[:, :, top:bottom, left:right]
        edit.init_mask = F.adaptive_max_pool2d(hole, (height, width))
        edit.output_image, edit.output_mask = edit.init_image, edit.init_mask
        if call.output_size is not None:
            edit.output_image = 2 * resize(edit.original[:, :, top:bottom, left:right], *call.output_size) - 1
            edit.output_mask = F.adaptive_max_pool2d(hole, call.output_size)

    def prepare_start(self, call: Any) -> None:
        """Noise, mask and masked image."""
        edit, given, factor = call.edit, call.given, self.vae_scale_factor
        shape = (call.count, self.vae.config.latent_channels, call.size[0] // factor, call.size[1] // factor)
        call.latents, call.noise, edit.image_latents = self.prepare_latents(
            edit.init_image,
            shape,
            call.prompt_embeds.dtype,
            call.timesteps[:1],
            given.strength,
            given.generator,
            given.latents,
        )
        if call.output_size is not None:
            call.detail_generator = forked(given.generator)
        # One masked pixel masks its latent cell, so that the cells cover all that is pasted.
        mask = F.max_pool2d(edit.init_mask, factor).to(call.latents)
        call.mask = mask.repeat_interleave(call.count // mask.shape[0], dim=0)
        edit.is_blended = self.unet.config.in_channels == shape[1]
        if not edit.is_blended:
            masked_image = edit.init_image * (edit.init_mask < 0.5)
            latents = self.encode_vae_image(masked_image, call.count, given.generator)
            call.masked_image_latents = latents.to(call.latents)

    def unet_channels(self, call: Any) -> torch.Tensor | None:
        """Mask and masked image latents (B, 1 + C, h, w) of an inpainting UNet."""
        return None if call.edit.is_blended else torch.cat([call.mask, call.masked_image_latents], dim=1)

    def after_step(self, call: Any, i: int) -> None:
        """What is kept is put back where the UNet does not read it."""
        edit, following = call.edit, call.timesteps[i + 1 : i + 2]
        if edit.is_blended:
            call.latents = self.blend(call.latents, edit.image_latents, call.noise, call.mask, following)

    def decode(self, call: Any) -> Any:
        """Latents to what `output_type` asks for, pasted into the picture."""
        edit, given = call.edit, call.given
        if given.output_type == "latent":
            return call.latents
        image = self.decode_latents(call.latents, given.generator)
        if call.output_size is not None:
            around = (edit.output_image, edit.output_mask)
            known = tuple(one.repeat_interleave(call.count // len(one), dim=0) for one in around)
            image = self.paint_detail(call, image, known, 1 - given.strength)
        image = self.image_processor.denormalize(image.float())
        if call.compared is not None:
            hole = edit.output_mask.repeat_interleave(call.count // len(edit.output_mask), dim=0).to(image)
            self.warn_of_leaks(image, call.compared, call.batch_size, given.num_images_per_prompt, hole)
        if edit.is_continued.any():
            image = self.soften_edge(
                image, edit.output_image, edit.output_mask, edit.is_continued, given.context_scale
            )
        image = self.paste(image, edit.original, edit.mask_image, edit.region, given.mask_feather)
        return self.image_processor.postprocess(image, given.output_type, do_denormalize=[False] * call.count)

    def add_context(self, call: Any) -> None:
        """What no reference gives, lent by what is computed and not repainted; palettes are laid into what is repainted.

        Pictures of which nearly all is repainted lend nothing: strength 0.
        """
        edit, given = call.edit, call.given
        edit.is_continued = torch.zeros(1, dtype=torch.bool)
        if self.context_granularities(given):
            self.add_surroundings(call)
            # Color and shape both go on with what surrounds the mask, and nothing of what is under it is kept.
            if given.strength == 1 and "sketch" in call.features.get("shape", [{}])[0]:
                places = [self.mg_adapter.config.granularities.index(name) for name in ("color", "shape")]
                edit.is_continued = (call.strengths[:, places] > 0).all(1)
        for features in (call.features, call.negatives):
            if "color" in features:  # all of a palette, in its proportions
                features["color"] = [{**parts, "area": edit.init_mask} for parts in features["color"]]

    def add_surroundings(self, call: Any) -> None:
        """Features of what surrounds the mask in place of those that are missing, and the strengths of these."""
        edit, names = call.edit, self.mg_adapter.config.granularities
        missing = [name for name in names if name not in call.features]
        count = max(len(edit.init_image), len(edit.init_mask))
        image = (edit.init_image / 2 + 0.5).clamp(0, 1).expand(count, -1, -1, -1)
        hole = edit.init_mask.expand(count, -1, -1, -1)
        is_surrounded = hole.mean((1, 2, 3)) < 0.95
        if not missing or not is_surrounded.any():
            return
        height, width = (side // self.vae_scale_factor for side in image.shape[2:])
        hole = hole * is_surrounded.view(-1, 1, 1, 1)
        context = self.mg_encoder.encode_context(image, hole, missing, self.mg_adapter.map_size(height, width))
        is_from_context = torch.tensor([name in context for name in names])
        shares = call.given.context_scale * torch.tensor(
            [CONTEXT_TEXTURE if name == "texture" else 1.0 for name in names], dtype=torch.float32
        )
        call.features = {**call.features, **context}
        call.strengths = call.strengths * torch.where(is_from_context, shares * is_surrounded.unsqueeze(1), 1.0)

    def crop_region(
        self, mask: torch.Tensor, height: int, width: int, padding_mask_crop: int | None
    ) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of what is computed: everything, or the surroundings of all masks together."""
        if padding_mask_crop is None:
            return 0, 0, mask.shape[3], mask.shape[2]
        union = PIL.Image.fromarray((255 * mask.amax((0, 1))).byte().numpy())
        return self.image_processor.get_crop_region(union, width, height, pad=padding_mask_crop)

    def prepare_latents(
        self,
        image: torch.Tensor,
        shape: tuple[int, int, int, int],
        dtype: torch.dtype,
        timestep: torch.Tensor,
        strength: float,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Where to start, the noise (B, C, h, w) used for it, and the latents of the image where they are needed.

        Args:
            image: (1 or B, 3, H, W) in [-1, 1].
            timestep: the first one; below strength 1 the image is noised to it.
            latents: the noise, drawn if not given.
        """
        image_latents = None
        if strength < 1 or self.unet.config.in_channels == shape[1]:
            image_latents = self.encode_vae_image(image, shape[0], generator).to(dtype)
        device = self._execution_device
        noise = randn_tensor(shape, generator, device, dtype) if latents is None else latents.to(device, dtype)
        if strength == 1:
            return noise * getattr(self.scheduler, "init_noise_sigma", 1.0), noise, image_latents
        return self.add_noise(image_latents, noise, timestep.repeat(shape[0])), noise, image_latents

    def blend(
        self,
        latents: torch.Tensor,
        image_latents: torch.Tensor,
        noise: torch.Tensor,
        mask: torch.Tensor,
        next_timestep: torch.Tensor,
    ) -> torch.Tensor:
        """Put the image, noised to the next timestep (none: not at all), back outside the mask (B, 1, h, w)."""
        if len(next_timestep):
            image_latents = self.add_noise(image_latents, noise, next_timestep)
        return (1 - mask) * image_latents + mask * latents

    def soften_edge(
        self,
        image: torch.Tensor,
        init_image: torch.Tensor,
        init_mask: torch.Tensor,
        is_continued: torch.Tensor,
        context_scale: float,
    ) -> torch.Tensor:
        """Let edits that go on with their surroundings begin as a smooth continuation of them, so that no seam shows.

        Over a sixteenth of the shorter side, or to the middle of a narrower mask, the continuation fades into what was
        painted.

        Args:
            image: (B, 3, h, w) in [0, 1], what was computed.
            init_image: (1 or B', 3, h, w) in [-1, 1]; init_mask: (1 or B', 1, h, w); B' a divisor of B.
            is_continued: (B',) bool, by prompt.
            context_scale: below 1, the share of the continuation.
        """
        count = image.shape[0]
        known, hole, chosen = (
            x.to(image.device).repeat_interleave(count // len(x), dim=0) for x in (init_image, init_mask, is_continued)
        )
        filled = self.mg_encoder.fill_smoothly((known / 2 + 0.5).clamp(0, 1), hole)
        alpha = feathered(hole, round(min(image.shape[2:]) / 16))
        alpha = 1 - min(context_scale, 1.0) * (1 - alpha / alpha.amax((1, 2, 3), keepdim=True))
        return torch.where(chosen.view(-1, 1, 1, 1) & (hole > 0), torch.lerp(filled, image, alpha), image)

    def paste(
        self,
        image: torch.Tensor,
        original: torch.Tensor,
        mask: torch.Tensor,
        region: tuple[int, int, int, int],
        mask_feather: int = 0,
    ) -> torch.Tensor:
        """Bring what was computed back to its place; outside the mask the original stays, bit for bit.

        Args:
            image: (B, 3, h, w) in [0, 1], what was computed for `region`.
            original: (1 or B', 3, H, W) in [0, 1], B' a divisor of B; each serves B / B' images in a row.
            mask: (1 or B', 1, H, W) of zeros and ones.
            region: (left, top, right, bottom) in pixels of `original`.
            mask_feather: width of the ramp inside the mask, in pixels of `original`.
        """
        left, top, right, bottom = region
        count = image.shape[0]
        original, mask, alpha = (
            x.to(image.device).repeat_interleave(count // x.shape[0], dim=0)
            for x in (original, mask, feathered(mask, mask_feather))
        )
        painted = original.clone()
        painted[:, :, top:bottom, left:right] = resize(image, bottom - top, right - left)
        # Where alpha is 1 this is exactly `painted`.
        return torch.where(mask > 0, alpha * painted + (1 - alpha) * original, original)
