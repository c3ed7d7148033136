"""diffusers' pipeline testers over our pipelines."""

import os
from pathlib import Path

import torch
from diffusers_tests.pipelines.pipeline_params import (
    TEXT_GUIDED_IMAGE_INPAINTING_BATCH_PARAMS,
    TEXT_GUIDED_IMAGE_INPAINTING_PARAMS,
    TEXT_TO_IMAGE_BATCH_PARAMS,
    TEXT_TO_IMAGE_PARAMS,
)
from diffusers_tests.pipelines.testing_utils import (
    BasePipelineTesterConfig,
    GroupOffloadTesterMixin,
    LayerwiseCastingTesterMixin,
    LoraMemoryTesterMixin,
    LoraTesterMixin,
    PipelineOffloadTesterMixin,
    PipelineTesterMixin,
    UNetLoraTesterMixin,
)
from pipelines.tiny import SIZE, picture, references, tiny_components

from mg_diffusion import MGInpaintPipeline, MGPipeline


class Generation(BasePipelineTesterConfig):
    pipeline_class = MGPipeline
    required_input_params_in_call_signature = TEXT_TO_IMAGE_PARAMS
    batch_input_params = TEXT_TO_IMAGE_BATCH_PARAMS
    callback_cfg_params = frozenset()
    output_shape = (3, SIZE, SIZE)
    is_inpainting = False
    without = ()

    def get_dummy_components(self):
        parts = tiny_components(Path(os.environ["HF_HOME"]), is_inpainting=self.is_inpainting)
        return {**parts, "image_encoder": None, "feature_extractor": None}  # of IP-Adapters

    def get_dummy_inputs(self):
        inputs = {
            "prompt": "A painting of a squirrel eating a burger",
            "reference_image": references(),
            "generator": self.get_generator(0),
            "num_inference_steps": 2,
            "guidance_scale": 6.0,
            "output_type": "pt",
        }
        return {name: value for name, value in inputs.items() if name not in self.without}


class Inpainting(Generation):
    pipeline_class = MGInpaintPipeline
    required_input_params_in_call_signature = TEXT_GUIDED_IMAGE_INPAINTING_PARAMS
    batch_input_params = TEXT_GUIDED_IMAGE_INPAINTING_BATCH_PARAMS
    is_inpainting = True

    def get_dummy_inputs(self):
        mask = torch.zeros(SIZE, SIZE)
        mask[4:12, 4:12] = 1
        edit = {"image": picture(3, SIZE, SIZE), "mask_image": mask.numpy()}
        return {**super().get_dummy_inputs(), **edit}


class Common(PipelineTesterMixin):
    def test_save_load_optional_components(self, tmp_path):
        # Text and references are refused where the component that reads them is missing.
        self.without = ("prompt", "reference_image")
        super().test_save_load_optional_components(tmp_path)


class TestGeneration(Common, Generation): ...


class TestInpainting(Common, Inpainting): ...


class TestGenerationLora(Generation, LoraTesterMixin, UNetLoraTesterMixin): ...


class TestInpaintingLora(Inpainting, LoraTesterMixin, UNetLoraTesterMixin): ...


class TestGenerationLayerwiseCasting(Generation, LayerwiseCastingTesterMixin): ...


class TestInpaintingLayerwiseCasting(Inpainting, LayerwiseCastingTesterMixin): ...


class TestGenerationOffloading(Generation, PipelineOffloadTesterMixin, GroupOffloadTesterMixin): ...


class TestInpaintingOffloading(Inpainting, PipelineOffloadTesterMixin, GroupOffloadTesterMixin): ...


class TestGenerationLoraMemory(Generation, LoraMemoryTesterMixin): ...
