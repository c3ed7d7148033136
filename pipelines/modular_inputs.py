"""Components and inputs that several blocks of Modular Diffusers name."""

import torch
from diffusers import ComponentSpec, DDIMScheduler, InputParam, UNet2DConditionModel
from diffusers.configuration_utils import FrozenDict
from diffusers.image_processor import VaeImageProcessor
from transformers import CLIPTextModel, CLIPTokenizer

from .modular_guider import MultiGranularityGuidance


# Without a type hint where the class may come with the repository: then `AutoModel` finds it.
TEXT_ENCODER = ComponentSpec("text_encoder", CLIPTextModel)
TOKENIZER = ComponentSpec("tokenizer", CLIPTokenizer)
UNET = ComponentSpec("unet", UNet2DConditionModel)
VAE = ComponentSpec("vae")
SCHEDULER = ComponentSpec("scheduler", DDIMScheduler)
MG_ENCODER = ComponentSpec("mg_encoder")
MG_ADAPTER = ComponentSpec("mg_adapter")
GUIDER = ComponentSpec(
    "guider",
    MultiGranularityGuidance,
    config=FrozenDict({"guidance_scale": 1.5}),
    default_creation_method="from_config",
)
IMAGE_PROCESSOR = ComponentSpec("image_processor", VaeImageProcessor, default_creation_method="from_config")


def batch_size_input() -> InputParam:
    return InputParam("batch_size", int, required=True, description="number of prompts")


def per_prompt_input() -> InputParam:
    return InputParam("num_images_per_prompt", int, default=1, description="pictures for each prompt")


def generator_input() -> InputParam:
    return InputParam(
        "generator",
        torch.Generator | list[torch.Generator],
        description="random numbers to draw from; a list holds one for each picture",
    )


def prompt_inputs() -> list[InputParam]:
    return [
        InputParam("prompt", str | list[str], description="one or several; `None` is empty"),
        InputParam("negative_prompt", str | list[str], description="what to steer away from"),
    ]


def reference_input() -> InputParam:
    return InputParam(
        "reference_image",
        dict,
        description='{"color": ..., "texture": ..., "shape": ...}, each optional, as in `MGPipeline`',
    )


def start_input() -> InputParam:
    purpose = "how much of the composition of the references survives, in [0, 1]; this share of the steps is skipped"
    return InputParam("composed_start", float, default=0.0, description=purpose)


def scale_input() -> InputParam:
    return InputParam(
        "granularity_scale",
        float | dict,
        default=1.0,
        description="strength of the references, for all or by granularity; 0 is off, 1 as trained",
    )


def steps_input() -> InputParam:
    return InputParam("num_inference_steps", int, description="of denoising; 20, or 4 of a distilled UNet")


def fusion_input() -> InputParam:
    return InputParam("fusion_scale", float, default=1.0, description="how much the granularities are mixed")
