"""Other adapters along with references: IP-Adapters, ControlNets and T2I-Adapters."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers import ControlNetModel, MultiAdapter, T2IAdapter
from diffusers.image_processor import VaeImageProcessor
from diffusers.loaders import IPAdapterMixin
from diffusers.models import MultiControlNetModel

from ..arrays import as_numbers, check_tensor, is_array, is_tensor
from ..depths import as_meant, check_read
from ..granularities import MOST_STRENGTH
from .lora_layers import remembered_loras


BASES = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "Stable Diffusion XL"}  # by cross_attention_dim


def networks(model: Any) -> list[Any]:
    """The single ControlNets or T2I-Adapters of what a call gets: none, one, several in one, or a list."""
    bare = getattr(model, "_orig_mod", model)
    if isinstance(bare, (MultiControlNetModel, MultiAdapter)):
        return list(bare.nets if isinstance(bare, MultiControlNetModel) else bare.adapters)
    if isinstance(bare, (list, tuple)):
        return [one for entry in bare for one in networks(entry)]
    return [] if model is None else [model]


def one_for_each(value: Any, count: int, name: str) -> list[float]:
    """A number for each of `count` networks, out of one for all or a list of them."""
    values = list(value) if isinstance(value, (list, tuple)) else [value] * count
    is_number = [isinstance(one, (int, float)) and abs(one) <= MOST_STRENGTH for one in values]
    if len(values) != count or not all(is_number):
        raise ValueError(
            f"`{name}` must be a finite number or a list of one for each of {count}, at most {MOST_STRENGTH:g}; got {value!r}."
        )
    return [float(one) for one in values]


def width_read(network: torch.nn.Module) -> int | str:
    """Numbers that the projection of an IP-Adapter reads of each embedding; a word where it reads embeddings of two kinds."""
    if hasattr(network, "clip_embeds"):
        return "numbers"
    return next((part.in_features for part in network.modules() if isinstance(part, torch.nn.Linear)), "numbers")


class OtherAdapters:
    """Checks of other adapters, and their inputs in every step."""

    def check_ip_adapter(self, ip_adapter_image: Any, ip_adapter_image_embeds: list[torch.Tensor] | None) -> None:
        """Raise a ValueError unless the UNet has an IP-Adapter for what is given, and is given something for the one it has."""
        given = [one for one in (ip_adapter_image, ip_adapter_image_embeds) if one is not None]
        is_loaded = self.bare_unet.config.encoder_hid_dim_type == "ip_image_proj"
        if len(given) > 1:
            raise ValueError("Pass `ip_adapter_image` or `ip_adapter_image_embeds`, not both.")
        if given and not is_loaded:
            raise ValueError("There is no IP-Adapter to read what it is given. Load one with `load_ip_adapter`.")
        if is_loaded and not given:
            raise ValueError(
                "The UNet has an IP-Adapter, which needs `ip_adapter_image` or `ip_adapter_image_embeds`. Pass one of "
                "them, or take the IP-Adapter out with `unload_ip_adapter`."
            )
        if not given:
            return
        processors = {n: p for n, p in self.bare_unet.attn_processors.items() if n.endswith("attn2.processor")}
        other = {type(p).__name__ for p in processors.values() if not hasattr(p, "to_k_ip")}
        if other:
            raise ValueError(
                f"The IP-Adapter's attention processors have been replaced by {sorted(other)}, as attention slicing, "
                f"`fuse_qkv_projections` and `set_attn_processor` do. Leave these out, and load the IP-Adapter again."
            )
        count = len(self.bare_unet.encoder_hid_proj.image_projection_layers)
        entries = given[0] if isinstance(given[0], list) else [given[0]]
        if len(entries) != count:
            raise ValueError(f"There are {count} IP-Adapters, and something for {len(entries)} of them is given.")
        for image in (one for entry in entries for one in (entry if isinstance(entry, list) else [entry])):
            if isinstance(image, PIL.Image.Image):
                check_read(image)
        if ip_adapter_image is not None and (self.image_encoder is None or self.feature_extractor is None):
            raise ValueError(
                "`ip_adapter_image` needs the components `image_encoder` and `feature_extractor`, which this pipeline "
                "was made without. Load the IP-Adapter with its `image_encoder_folder`, or pass "
                "`ip_adapter_image_embeds`."
            )
        if ip_adapter_image_embeds is None:
            return
        if not isinstance(ip_adapter_image_embeds, list):
            raise ValueError(
                "`ip_adapter_image_embeds` is a list with a tensor for each IP-Adapter. Put it into a list."
            )
        rows = 2 if self.do_classifier_free_guidance else 1
        networks_of = self.bare_unet.encoder_hid_proj.image_projection_layers
        for number, (network, embeds) in enumerate(zip(networks_of, entries, strict=True)):
            middle = ("tokens",) if getattr(embeds, "ndim", 3) == 4 else ()
            shape = (rows, "images", *middle, width_read(network))
            check_tensor(embeds, f"ip_adapter_image_embeds[{number}]", shape, "prepare_ip_adapter_image_embeds")

    def check_other_adapters(self, controlnet: Any, control_image: Any, t2i_adapter: Any, t2i_image: Any) -> None:
        """Raise a ValueError for ControlNets and T2I-Adapters that lack their image or do not fit the UNet."""
        for kind, name, model, image_name, image in (
            (ControlNetModel, "controlnet", controlnet, "control_image", control_image),
            (T2IAdapter, "t2i_adapter", t2i_adapter, "t2i_image", t2i_image),
        ):
            if (not networks(model)) != (image is None):
                raise ValueError(f"`{name}` and `{image_name}` go together; only one of them is given.")
            for net in networks(model):
                bare = getattr(net, "_orig_mod", net)
                if not isinstance(bare, kind):
                    raise ValueError(
                        f"`{name}` must hold models of the type {kind.__name__}, got {type(bare).__name__}."
                    )
                if bare.dtype != self.unet.dtype:
                    raise ValueError(
                        f"`{name}` computes in {bare.dtype}, the UNet in {self.unet.dtype}. Use "
                        f"`{name}.to({self.unet.dtype})`."
                    )
                is_hooked = any(
                    hasattr(part, "_hf_hook") or hasattr(part, "_diffusers_hook") for part in bare.modules()
                )
                if bare.device.type != self._execution_device.type and not is_hooked:
                    raise ValueError(
                        f"`{name}` is on {bare.device}, the pipeline computes on {self._execution_device}. It is no "
                        f"component, which moves with the pipeline; move it there, or offload it."
                    )
        for net in networks(controlnet):
            ours, theirs = self.unet.config, getattr(net, "_orig_mod", net).config
            if theirs.global_pool_conditions:
                raise ValueError(
                    "ControlNets with `global_pool_conditions` need a guess mode, which there is not here."
                )
            wanted = {
                "in_channels": ours.out_channels,
                **{name: ours[name] for name in ("block_out_channels", "layers_per_block", "cross_attention_dim")},
            }
            different = {n: (theirs[n], w) for n, w in wanted.items() if str(theirs[n]) != str(w)}
            if different:
                raise ValueError(f"`controlnet` does not fit the UNet; (its own, needed): {different}.")

    def load_ip_adapter(self, *args: Any, **kwargs: Any) -> None:
        """As in `IPAdapterMixin`; where that fails everything stays as it was.

        Raises:
            ValueError: for an IP-Adapter of another base, and for one that is damaged.
            OSError: for a file that is not there.
        """
        try:
            with self._as_it_was_unless_done():
                IPAdapterMixin.load_ip_adapter(self, *args, **kwargs)
        except (OSError, ImportError):  # no fault of what is in the file
            raise
        except Exception as error:  # of the many that a file can lead to
            said = str(error)
            if "_ip." in said and "torch.Size" in said:
                raise ValueError(_other_base(said, self.bare_unet.config.cross_attention_dim)) from error
            if isinstance(error, ValueError):
                raise
            raise ValueError(
                f"The IP-Adapter cannot be loaded, and the pipeline stays as it was: its file is damaged, incomplete or none of an "
                f"IP-Adapter ({type(error).__name__}: {said.splitlines()[0] if said else 'without a word'}). Download it anew, or "
                f"name another `weight_name`."
            ) from error

    @contextlib.contextmanager
    def _as_it_was_unless_done(self) -> Iterator[None]:
        """What loading an IP-Adapter changes is as before where the `with` block does not come to its end."""
        unet = self.bare_unet
        parts = {name: getattr(self, name) for name in ("image_encoder", "feature_extractor")}
        processors, kind = dict(unet.attn_processors), unet.config.encoder_hid_dim_type
        kept = {name: getattr(unet, name, None) for name in ("encoder_hid_proj", "text_encoder_hid_proj")}
        with_loras = [unet, *(getattr(self, name, None) for name in ("text_encoder", "text_encoder_2"))]
        loras = [remembered_loras(model) for model in with_loras if isinstance(model, torch.nn.Module)]
        try:
            yield
        except BaseException:
            for name, part in kept.items():
                if getattr(unet, name, None) is not part:
                    setattr(unet, name, part)
            unet.config.encoder_hid_dim_type = kind
            if any(one is not processors[name] for name, one in unet.attn_processors.items()):
                unet.set_attn_processor(processors)
            for bring_back in loras:
                bring_back()
            self.register_modules(**parts)
            raise

    def set_ip_adapter_scale(self, scale: Any) -> None:
        """As in `IPAdapterMixin`; in a callback, too, where processors of the adapter hide those it looks for."""
        hiding = {part: part.__dict__.get("processor") for part in self.bare_unet.modules()}
        hiding = {part: own for part, own in hiding.items() if hasattr(getattr(own, "base", None), "to_k_ip")}
        try:
            for part in hiding:
                del part.__dict__["processor"]
            IPAdapterMixin.set_ip_adapter_scale(self, scale)
        finally:
            for part, own in hiding.items():
                part.__dict__["processor"] = own

    def prepare_control_image(
        self, image: Any, size: tuple[int, int], channels: int, batch_size: int, name: str
    ) -> torch.Tensor:
        """The image of one ControlNet or T2I-Adapter to (1 or `batch_size`, channels, *size) in [0, 1].

        Raises:
            ValueError: unless it holds one image for all prompts or one for each, with so many channels, and values in
                [0, 1], or -1, which some ControlNets read as masked.
        """
        kind = {"do_convert_rgb": channels == 3, "do_convert_grayscale": channels == 1}
        processor = VaeImageProcessor(vae_scale_factor=self.vae_scale_factor, do_normalize=False, **kind)
        pixels = processor.preprocess(readable(image, name), *size).to(dtype=torch.float32)
        if pixels.shape[0] not in (1, batch_size) or pixels.shape[1] != channels:
            raise ValueError(
                f"`{name}` must hold 1 or {batch_size} images of {channels} channels for each network, got the shape "
                f"{tuple(pixels.shape)}."
            )
        if not (pixels.min() >= -1 and pixels.max() <= 1):
            raise ValueError(
                f"`{name}` as an array must be floating point in [0, 1], got values from {pixels.min()} to {pixels.max()}."
            )
        return pixels.to(self._execution_device, self.unet.dtype)

    def by_network(self, image: Any, count: int, name: str) -> list[Any]:
        """The images of a call by network: as they are for one, or a list of one entry for each of several.

        Raises:
            ValueError: for a list of another length.
        """
        if count == 1:
            return [image]
        if isinstance(image, (list, tuple)) and image and isinstance(image[0], list):  # by prompt, as in diffusers
            image = [list(entries) for entries in zip(*image, strict=True)]
        if not isinstance(image, (list, tuple)) or len(image) != count:
            raise ValueError(f"`{name}` must be a list with an entry for each of the {count} networks.")
        return list(image)

    def prepare_controlnet(self, call: Any) -> list[list[tuple[Any, torch.Tensor, float]]]:
        """By step, each ControlNet with its image and its strength there, which is 0 outside its window.

        Raises:
            ValueError: for strengths, windows and images that are none, or of another number.
        """
        given, nets, steps = call.given, networks(call.given.controlnet), len(call.timesteps)
        if not nets:
            return [[]] * steps
        scales, starts, ends = (
            one_for_each(getattr(given, name), len(nets), name)
            for name in ("controlnet_conditioning_scale", "control_guidance_start", "control_guidance_end")
        )
        if not all(0 <= first < last <= 1 for first, last in zip(starts, ends, strict=True)):
            raise ValueError(
                f"`control_guidance_start` and `control_guidance_end` are fractions of the run, 0 <= start < end <= 1; "
                f"got {starts} and {ends}."
            )
        images = [
            self.prepare_control_image(
                one, call.size, net.config.conditioning_channels, call.batch_size, "control_image"
            )
            for net, one in zip(nets, self.by_network(given.control_image, len(nets), "control_image"), strict=True)
        ]
        images = [image.repeat_interleave(call.count // len(image), dim=0) for image in images]
        return [
            [
                (net, image, scale * (first <= i / steps and (i + 1) / steps <= last))
                for net, image, scale, first, last in zip(nets, images, scales, starts, ends, strict=True)
            ]
            for i in range(steps)
        ]

    def controlnet_residuals(
        self,
        control: Sequence[tuple[Any, torch.Tensor, float]],
        model_input: torch.Tensor,
        t: torch.Tensor,
        text: torch.Tensor,
        copies: int,
        added_cond: dict[str, torch.Tensor] | None = None,
    ) -> dict[str, Any]:
        """What the ControlNets of `prepare_controlnet` add in a step, summed, as arguments of the UNet."""
        down, mid = [], None
        for net, image, scale in control:
            more, middle = net(
                model_input,
                t,
                encoder_hidden_states=text,
                controlnet_cond=torch.cat([image] * copies),
                conditioning_scale=scale,
                added_cond_kwargs=added_cond,
                return_dict=False,
            )
            down = [a + b for a, b in zip(down, more, strict=True)] if down else list(more)
            mid = middle if mid is None else mid + middle
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": mid} if down else {}

    def prepare_t2i(self, call: Any) -> list[list[torch.Tensor]]:
        """By step, what T2I-Adapters add to the down blocks, (number of pictures, C, h, w) each.

        Raises:
            ValueError: for strengths, factors and images that are none or of another number, and for an adapter of
                another UNet.
        """
        given, steps, size, batch_size = call.given, len(call.timesteps), call.size, call.batch_size
        adapters, features, factor = networks(given.t2i_adapter), [], given.adapter_conditioning_factor
        if not adapters:
            return [[]] * steps
        scales = one_for_each(given.adapter_conditioning_scale, len(adapters), "adapter_conditioning_scale")
        if not 0 <= one_for_each(factor, 1, "adapter_conditioning_factor")[0] <= 1:
            raise ValueError(f"`adapter_conditioning_factor` is a fraction of the run, from 0 to 1; got {factor}.")
        images = self.by_network(given.t2i_image, len(adapters), "t2i_image")
        for adapter, scale, image in zip(adapters, scales, images, strict=True):
            if any(side % adapter.downscale_factor for side in size):
                raise ValueError(
                    f"With this `t2i_adapter`, height and width must be multiples of {adapter.downscale_factor}; got {size}."
                )
            pixels = self.prepare_control_image(image, size, adapter.config.in_channels, batch_size, "t2i_image")
            own = [feature * scale for feature in adapter(pixels)]
            self.check_t2i_features(own, size)
            own = [one.repeat_interleave(batch_size // len(one), dim=0) for one in own]
            features = [a + b for a, b in zip(features, own, strict=True)] if features else own
        features = [feature.repeat_interleave(given.num_images_per_prompt, dim=0) for feature in features]
        return [features if i < int(steps * factor) else [] for i in range(steps)]

    @staticmethod
    def with_t2i(residuals: list[torch.Tensor], features: Sequence[torch.Tensor], copies: int) -> list[torch.Tensor]:
        """Residuals of the down blocks, with what T2I-Adapters add to them in a step."""
        added = [torch.cat([feature] * copies) for feature in features]
        summed = [one + other for one, other in zip(residuals, added, strict=False)]
        return summed + residuals[len(summed) :] + added[len(summed) :]

    def check_t2i_features(self, features: Sequence[torch.Tensor], size: tuple[int, int]) -> None:
        """Raise a ValueError unless the UNet's down blocks, and for one more its middle, can add these features."""
        widths, kinds = self.unet.config.block_out_channels, self.unet.config.down_block_types
        last = len(widths) - 1
        # A CrossAttnDownBlock2D adds its residual before it downsamples, a DownBlock2D after.
        levels = [level + (level < last and not kind.startswith("CrossAttn")) for level, kind in enumerate(kinds)]
        height, width = (side // self.vae_scale_factor for side in size)
        wanted = [
            (channels, -(-height // 2**level), -(-width // 2**level))
            for channels, level in zip([*widths, widths[-1]], [*levels, last], strict=True)
        ]
        found = [tuple(feature.shape[1:]) for feature in features]
        if found != wanted[: len(found)]:
            raise ValueError(
                f"`t2i_adapter` does not fit the UNet: its features have the shapes {found}, the UNet's blocks {wanted}."
            )


def as_shown(images: Any) -> Any:
    """What an IP-Adapter is given, pictures as their files mean them and in 8 bits, all else as it is."""
    if isinstance(images, list):
        return [as_shown(one) for one in images]
    return in_8_bits(as_meant(images)) if isinstance(images, PIL.Image.Image) else images


def readable(image: Any, name: str) -> Any:
    """What diffusers reads as it is meant: arrays in float32, pictures of 16 bits, such as depth maps, in 8.

    Raises:
        ValueError: for another type, for what holds no numbers or no pixels, for a file that Pillow reads wrong.
    """
    if isinstance(image, (list, tuple)) and image:
        return [readable(one, name) for one in image]
    if is_array(image):
        numbers = as_numbers(image, f"`{name}`").astype(np.float32)
        if numbers.ndim not in (2, 3, 4) or not numbers.size:
            raise ValueError(
                f"`{name}` as an array has the shape (H, W, C) or (B, H, W, C) of numpy, or (C, H, W) or (B, C, H, W) of "
                f"torch; got {numbers.shape}."
            )
        return torch.from_numpy(numbers) if is_tensor(image) else numbers
    if not isinstance(image, PIL.Image.Image):
        raise ValueError(
            f"`{name}` must be a PIL image, an array of numpy or torch, or a list of those, got {type(image).__name__}."
        )
    return in_8_bits(as_meant(image))


def in_8_bits(image: PIL.Image.Image) -> PIL.Image.Image:
    """A picture of 16 bits, scaled to 8; Pillow would cut it off at 255. All others as they are."""
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.float64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(
            f"A control image of the mode {image.mode} must lie between 0 and 65535, got [{values.min():g}, {values.max():g}]. "
            f"Bring it to [0, 1] as an array."
        )
    if image.mode == "I" and values.max() <= 255:  # 8 bits in a wider type
        return image
    return PIL.Image.fromarray((values / 257).round().astype(np.uint8))


def _other_base(said: str, width: int) -> str:
    """What a list of sizes that do not match comes down to.

    Args:
        said: by diffusers; width: `cross_attention_dim` of the UNet.
    """
    widths = (int(one) for one in re.findall(r"Size\(\[\d+, (\d+)\]", said))
    theirs = next((one for one in widths if one != width), None)
    own = f"cross_attention_dim {width}" + (f" ({BASES[width]})" if width in BASES else "")
    made = f"cross_attention_dim {theirs}" + (f" ({BASES[theirs]})" if theirs in BASES else "")
    made = made if theirs else "other widths of its attention layers"
    return (
        f"This IP-Adapter was made for a UNet with {made}, and this one has {own}: load the file that was made for this base, "
        f"or use the base that it was made for."
    )
