"""What the arguments of a call mean, said once for all pipelines."""

import inspect
import textwrap
from collections.abc import Callable
from typing import Any, TypeVar


Documented = TypeVar("Documented", bound=Callable[..., Any])
INDENT = {"initial_indent": " " * 4, "subsequent_indent": " " * 8, "break_on_hyphens": False}
# By argument, or by several that belong together.
ARGUMENTS = {
    "prompt": 'one or several; `None` is "" where there is a text encoder.',
    "prompt_2": "for the second text encoder, `prompt` by default; one for all or one for each prompt.",
    "image": """the picture to edit, or one for each prompt: PIL image, path, numpy (H, W, 3), torch (3, H, W), a batched array,
        or a list; arrays are uint8 or float in [0, 1]. PIL images and files, of masks too, are turned upright as their
        EXIF orientation says.""",
    "mask_image": "of the same size, binary, white (1, 255, true) is repainted; not all black.",
    "reference_image": """{"color": ..., "texture": ..., "shape": ...}, each of them optional: a PIL image, path, array, tensor, a
        dict {"image", "mask", "weight", "region"}, a list of those (averaged by weight), or a list of such lists, one
        for each prompt. "color" also takes a palette, a list of "#rrggbb" or "#rrggbb:weight", or one text of them with commas between. A region, a mask or a box
        in fractions, is where in the output a reference counts. (In an edit, shapes and regions are laid out over what is
        computed: the whole picture or the surroundings of the mask.)""",
    "granularity_scale": """strength, 0 is off, 1 is as trained, above 1 extrapolates; one for all or, by granularity, a number,
        one for each prompt, or a dict of blocks of the UNet as of `set_ip_adapter_scale`, {"down": {"block_1": [0.0, 1.0]},
        "mid": 0.5, "up": 1.0}, where what is not named is 0 (octaves have no such blocks and count in full, unless all are 0). A granularity that
        is not named keeps 1; one that is not given is passed over.""",
    "texture_scale": """how coarse textures are laid: 1 keeps their size relative to the frame, 2 is twice as coarse; a dict of a
        reference may have a "scale" of its own, which this multiplies.""",
    "assignment": """of colors to the regions of the shape: "light" keeps dark what is dark in the shape reference, "free" leaves it
        to the generator.""",
    "height, width": """in pixels; by default the UNet's native size, or, with a detail network, that network's, in the aspect of
        the shape reference. A side that is given alone keeps that aspect, with a detail network and without.""",
    "num_detail_steps": """denoising steps of each octave, where there is a detail network; "auto" is 6, or 3 above a distilled
        UNet.""",
    "padding_mask_crop": "pixels around the mask that are computed with it; `None` computes the whole picture.",
    "strength": """above 0 and at most 1; how much of the noise schedule is run. 1 forgets what was under the mask.""",
    "num_inference_steps, timesteps, sigmas": """number of denoising steps (at strength 1), or what sets them one by one, as the
        scheduler takes it. "auto" is 20 (50 of Stable Diffusion XL), or 4 of a UNet that is distilled, which its
        `time_cond_proj_dim` tells.""",
    "guidance_scale": """how far to go beyond the prediction without prompt and references; 1 is off. A distilled UNet reads it as
        a number and needs no second row.""",
    "negative_prompt": "what to steer away from; one for all prompts or one for each.",
    "negative_prompt_2": "for the second text encoder, `negative_prompt` by default.",
    "num_images_per_prompt": "pictures for each prompt.",
    "eta": "of DDIM; other schedulers ignore it.",
    "generator": "random numbers to draw from; a list holds one for each picture.",
    "latents": "(number of pictures, C, h, w) noise of unit deviation to start from.",
    "prompt_embeds, negative_prompt_embeds, pooled_prompt_embeds, negative_pooled_prompt_embeds": """from `encode_prompt`, in place
        of the prompts.""",
    "ip_adapter_image, ip_adapter_image_embeds": """for IP-Adapters, as in `StableDiffusionPipeline`; masks are given as
        `cross_attention_kwargs={"ip_adapter_masks": ...}`.""",
    "reference_embeds": "from `encode_reference`, in place of `reference_image`.",
    "fusion_scale": "how much the granularities are mixed with each other; 0 not at all, 1 as trained.",
    "granularity_schedule": """how strengths change over the steps; by granularity a window (start, end) in fractions of the run, a
        list of factors from the first step to the last, or a callable of the fraction. A granularity that is not named
        keeps 1.""",
    "granularity_guidance": """by granularity, how far to go beyond the prediction without its reference, or with its negative one;
        0 is off. Each named granularity costs one more row of the UNet.""",
    "negative_reference_image": """as `reference_image`, what to steer away from, at strength 1; with a `granularity_guidance` of 1
        where none is named.""",
    "feature_guidance_scale": """training-free guidance by the features of the references; a number for all of them or by
        granularity, 0 is off, 1 a good start. Works without an adapter and along with one. "auto" is 0.5 of color, 2 of
        texture and 0.25 of shape where there is no adapter, for references without regions, and 0 with one.""",
    "composed_start": """how much of the composition of the references (`mg_diffusion.compose`) survives, in [0, 1]: denoising
        begins with it, in an edit inside the mask, and this share of the steps is skipped. 0 is off. "auto" is a measured
        value where there is no adapter, and 0 with one, at a `strength` below 1, or for features that hold no layout; 0.75 where
        octaves above a distilled UNet have a whole sketch (docs/few-steps.md).""",
    "feature_guidance_window": "(start, end) in fractions of the run; steps that lie in it as a whole are guided.",
    "feature_guidance_decoder": """how the picture is looked at in each step: "linear", a linear map fitted to the VAE once; "vae";
        or a model with `decode`, such as `AutoencoderTiny`.""",
    "feature_guidance_full": "whether the gradient goes on through the UNet; two to three times as slow.",
    "return_attribution": """whether to return how much each granularity moved the prediction, where and in which step; each costs
        one more row of the UNet.""",
    "leak_guard": """whether to warn where the output follows the shape of its color or texture reference more than that of its
        shape reference.""",
    "controlnet, control_image": """a `ControlNetModel` and its image, or lists of them; the image is PIL, numpy (B, H, W, 3) or torch
        (B, 3, H, W) in [0, 1], or a list with one for each prompt. It lies over the whole picture; where only a part is
        computed, that part is cut out.""",
    "controlnet_conditioning_scale": "strength, one for all ControlNets or a list.",
    "control_guidance_start, control_guidance_end": """in fractions of the run; a step counts if it lies between them as a whole.""",
    "t2i_adapter, t2i_image": "a `T2IAdapter` and its image, or lists of them.",
    "adapter_conditioning_scale": "strength, one for all T2I-Adapters or a list.",
    "adapter_conditioning_factor": "the fraction of the run, from its start, in which T2I-Adapters count.",
    "context_scale": """strength of what surrounds the mask: it lends every granularity that no reference gives, so that an edit
        matches its surroundings. 0 is off; `granularity_scale` multiplies it. Where color and shape are both lent, the
        edge of the edit fades into a smooth continuation of the surroundings.""",
    "mask_feather": "width in pixels of a soft edge, which lies inside the mask.",
    "original_size, target_size": """(height, width) in pixels of the picture as the UNet should take it: before it was brought to its
        size, and after; by default the size that is computed.""",
    "crops_coords_top_left": "(top, left), where it should seem to have been cropped.",
    "negative_original_size, negative_crops_coords_top_left, negative_target_size": """the same of what to steer away from; by default
        those of the picture. Both sizes or none.""",
    "output_type": '"pil", "np" (B, H, W, 3) or "pt" (B, 3, H, W) in [0, 1], or "latent" (of what was computed).',
    "return_dict": "whether to return a `MultiGranularityPipelineOutput` or a tuple.",
    "cross_attention_kwargs": 'passed on to the attention processors; "scale" is the strength of LoRA layers.',
    "clip_skip": "layers of the text encoder to skip at its end.",
    "callback_on_step_end": """called after each step with pipeline, step, timestep and the tensors named in
        `callback_on_step_end_tensor_inputs`; what it returns replaces them.""",
    "callback_on_step_end_tensor_inputs": "some of the pipeline's `_callback_tensor_inputs`.",
}


def documented(example: str, **own: str) -> Callable[[Documented], Documented]:
    """A decorator that fills the `Args:` of a docstring by the signature, and its `Examples:` (as diffusers does).

    Args:
        own: what an argument means in this pipeline, where `ARGUMENTS` says something else or nothing.
    """

    def fill(function: Documented) -> Documented:
        if function.__doc__ is None:  # `python -OO`
            return function
        names = list(inspect.signature(function).parameters)
        known = {name for key in ARGUMENTS for name in key.split(", ")}
        written = []
        for key, meaning in {**ARGUMENTS, **{name: own[name] for name in own.keys() - known}}.items():
            given = [name for name in key.split(", ") if name in names]
            if given:
                entry = f"{', '.join(given)}: {own.get(given[0], meaning)}"
                written.append((names.index(given[0]), textwrap.fill(" ".join(entry.split()), 111, **INDENT)))
        arguments = "\n".join(line for _, line in sorted(written))
        function.__doc__ = inspect.cleandoc(function.__doc__).replace("Args:\n", f"Args:\n{arguments}\n", 1)
        function.__doc__ = function.__doc__.replace("Examples:\n", textwrap.dedent(example).lstrip("\n"), 1)
        return function

    return fill
