"""diffusers' model testers over our models.

The testers call a model as a UNet is called: keyword arguments, `return_dict`, a tensor or a tuple of them. The encoder
and the adapter return what they make by granularity; `Flat...` hands the same over in the testers' form, nothing else.
"""

import torch
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers_tests.models.testing_utils import (
    BaseModelTesterConfig,
    CPUOffloadTesterMixin,
    GroupOffloadTesterMixin,
    LayerwiseCastingTesterMixin,
    ModelTesterMixin,
    TorchCompileTesterMixin,
    TrainingTesterMixin,
)
from diffusers_tests.testing_utils import require_accelerator, torch_device
from pipelines.tiny import seeded, tiny_adapter, tiny_encoder, tiny_unet

from mg_diffusion import AutoencoderHaar, MGAdapter, MGEncoder


def flat(tensors):
    return torch.cat([tensor.flatten(1) for tensor in tensors], 1)


def output(sample, return_dict):
    return DecoderOutput(sample=sample) if return_dict else (sample,)


class FlatEncoder(MGEncoder):
    def forward(self, views, return_dict=True):
        features = super().forward(views)
        return output(flat(part for (parts,) in features.values() for part in parts.values()), return_dict)


class FlatAdapter(MGAdapter):
    def forward(self, features, strengths, latent_size, return_dict=True):
        tokens, residuals = super().forward(features, strengths, latent_size)
        return output(flat([tokens, *residuals]), return_dict)


def on_device(parts):
    return {name: {key: value.to(torch_device) for key, value in tensors.items()} for name, tensors in parts.items()}


def views():
    picture = torch.rand(2, 3, 32, 32, generator=seeded())
    return tiny_encoder().views(picture, generator=seeded())


class Encoder(BaseModelTesterConfig):
    model_class = FlatEncoder
    output_shape = (9892,)

    def get_init_dict(self):
        kept = ("granularities", "sample_size", "color_channels", "texture_channels", "shape_backbone", "num_tiles")
        return {name: tiny_encoder().config[name] for name in kept}

    def get_dummy_inputs(self):
        return {"views": on_device(views())}


class Adapter(BaseModelTesterConfig):
    model_class = FlatAdapter
    output_shape = (3168,)
    main_input_name = "strengths"

    def get_init_dict(self):
        config = tiny_adapter(tiny_unet(4, False), tiny_encoder()).config
        return {name: value for name, value in config.items() if not name.startswith("_")}

    def get_dummy_inputs(self):
        torch.manual_seed(0)
        with torch.no_grad():
            features = tiny_encoder()(views())
        strengths = torch.tensor([[1.0, 0.5, 0.7]] * 2, device=torch_device)
        features = {name: [parts] for name, parts in on_device({n: own for n, (own,) in features.items()}).items()}
        return {"features": features, "strengths": strengths, "latent_size": (8, 8)}


class Haar(BaseModelTesterConfig):
    model_class = AutoencoderHaar
    output_shape = (3, 32, 32)

    def get_init_dict(self):
        return {"sample_size": 32}

    def get_dummy_inputs(self):
        return {"sample": torch.randn(2, 3, 32, 32, generator=seeded()).to(torch_device)}


class TestEncoder(Encoder, ModelTesterMixin): ...


class TestAdapter(Adapter, ModelTesterMixin): ...


class TestHaar(Haar, ModelTesterMixin): ...


class TestEncoderTraining(Encoder, TrainingTesterMixin): ...


class TestAdapterTraining(Adapter, TrainingTesterMixin): ...


class TestEncoderLayerwiseCasting(Encoder, LayerwiseCastingTesterMixin): ...


class TestAdapterLayerwiseCasting(Adapter, LayerwiseCastingTesterMixin): ...


@require_accelerator
class TestEncoderOffloading(Encoder, CPUOffloadTesterMixin, GroupOffloadTesterMixin): ...


@require_accelerator
class TestAdapterOffloading(Adapter, CPUOffloadTesterMixin, GroupOffloadTesterMixin): ...


class TestEncoderCompile(Encoder, TorchCompileTesterMixin): ...


class TestAdapterCompile(Adapter, TorchCompileTesterMixin): ...
