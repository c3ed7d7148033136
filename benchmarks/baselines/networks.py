"""Three peers as modules around a frozen UNet, each with one input per granularity.

All read plain pictures; what they are to take from which is what training teaches them, with the samples and the loss
that our own adapter is trained with.
"""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import ControlNetModel, T2IAdapter, UNet2DConditionModel
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from diffusers.models.embeddings import IPAdapterPlusImageProjection, MultiIPAdapterImageProjection
from torch import nn
from transformers import AutoBackbone, AutoConfig

from mg_diffusion.granularities import GRANULARITIES


NUM_TOKENS = 8  # for each reference, as many as our adapter has
CANNY = (100, 200)  # thresholds of OpenCV's examples, which T2I-Adapter and ControlNet use as well
PALETTE_SIDE = 8  # T2I-Adapter's color condition is the picture reduced so far
References = Mapping[str, torch.Tensor]  # (B, 3, H, W) in [0, 1] by granularity


class Baseline(nn.Module):
    """What all share: a frozen UNet, and conditions that are computed once for all steps."""

    def __init__(self, unet: UNet2DConditionModel):
        super().__init__()
        self.unet = unet.requires_grad_(False)

    def encode(self, references: References, strengths: torch.Tensor) -> Sequence[torch.Tensor]:
        """Conditions of references at strengths (B, 3); 0 is absent."""
        raise NotImplementedError

    def forward(
        self, unet_input: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor, condition: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """The prediction of the UNet, (B, C, h, w)."""
        raise NotImplementedError


class IPAdapterStyle(Baseline):
    """Decoupled cross-attention over tokens of each picture (Ye et al., arXiv 2308.06721; its "plus" form).

    CLIP is replaced by a small convolutional backbone that is trained along, as is ours: there is none at 64 pixels.
    """

    def __init__(self, unet: UNet2DConditionModel, backbone: Mapping):
        super().__init__(unet)
        width = unet.config.cross_attention_dim
        self.backbone = AutoBackbone.from_config(
            AutoConfig.for_model(**{**backbone, "num_channels": 3, "out_features": ["stage3"]})
        )
        channels = backbone["hidden_sizes"][-1]
        self.projection = MultiIPAdapterImageProjection(
            [
                IPAdapterPlusImageProjection(channels, width, width, 2, 32, 4, num_queries=NUM_TOKENS)
                for _ in GRANULARITIES
            ]
        )
        processors = {}
        for name, processor in unet.attn_processors.items():
            attn = unet.get_submodule(name.removesuffix(".processor"))
            if attn.is_cross_attention:
                processor = IPAdapterAttnProcessor2_0(attn.inner_dim, width, (NUM_TOKENS,) * 3)
                for key, value in zip(processor.to_k_ip, processor.to_v_ip, strict=True):
                    key.load_state_dict(attn.to_k.state_dict())  # where the paper starts from
                    value.load_state_dict(attn.to_v.state_dict())
            processors[name] = processor
        unet.set_attn_processor(processors)

    def encode(self, references: References, strengths: torch.Tensor) -> list[torch.Tensor]:
        maps = [self.backbone(references[name] * 2 - 1).feature_maps[0] for name in GRANULARITIES]
        tokens = self.projection([each.flatten(2).transpose(1, 2).unsqueeze(1) for each in maps])
        # Keys and values have no bias: tokens of zero add nothing, as a strength of 0 does.
        present = (strengths > 0).to(tokens[0].dtype)
        return [each * present[:, place].view(-1, 1, 1, 1) for place, each in enumerate(tokens)]

    def forward(
        self, unet_input: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor, condition: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        return self.unet(unet_input, timesteps, (text, list(condition))).sample

    def set_scale(self, strengths: Sequence[float]) -> None:
        """IP-Adapter's strengths are attributes of its processors, one for all samples."""
        for module in self.unet.modules():
            if isinstance(module, IPAdapterAttnProcessor2_0):
                module.scale = list(strengths)


class T2IAdapterStyle(Baseline):
    """One T2I-Adapter for each picture, summed (Mou et al., arXiv 2302.08453): coarse colors, luminance, Canny edges."""

    def __init__(self, unet: UNet2DConditionModel, backbone: Mapping):
        super().__init__(unet)
        widths = list(unet.config.block_out_channels)
        self.adapters = nn.ModuleDict(
            {
                name: T2IAdapter(channels, widths, num_res_blocks=2, downscale_factor=2, adapter_type="full_adapter")
                for name, channels in (("color", 3), ("texture", 1), ("shape", 1))
            }
        )

    def encode(self, references: References, strengths: torch.Tensor) -> list[torch.Tensor]:
        hints, total = hints_of(references), None
        for place, name in enumerate(GRANULARITIES):
            residuals = self.adapters[name](hints[name])
            scaled = [each * strengths[:, place].view(-1, 1, 1, 1) for each in residuals]
            total = scaled if total is None else [one + other for one, other in zip(total, scaled, strict=True)]
        return total

    def forward(
        self, unet_input: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor, condition: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        residuals = list(condition)  # the UNet empties the list that it gets
        return self.unet(unet_input, timesteps, text, down_intrablock_additional_residuals=residuals).sample


class ControlNetStyle(Baseline):
    """A trained copy of the encoder half (Zhang et al., arXiv 2302.05543) that reads all three hints as channels."""

    def __init__(self, unet: UNet2DConditionModel, backbone: Mapping):
        super().__init__(unet)
        self.controlnet = ControlNetModel.from_unet(
            unet, conditioning_embedding_out_channels=(16, 32), conditioning_channels=5
        ).requires_grad_(True)

    def encode(self, references: References, strengths: torch.Tensor) -> list[torch.Tensor]:
        hints = hints_of(references)
        scaled = [hints[name] * strengths[:, place].view(-1, 1, 1, 1) for place, name in enumerate(GRANULARITIES)]
        return [torch.cat(scaled, 1), strengths.amax(1)]

    def forward(
        self, unet_input: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor, condition: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        hint, strongest = condition
        down, middle = self.controlnet(unet_input, timesteps, text, controlnet_cond=hint, return_dict=False)
        present = (strongest > 0).to(middle.dtype).view(-1, 1, 1, 1)  # without any reference, the base as it is
        return self.unet(
            unet_input,
            timesteps,
            text,
            down_block_additional_residuals=[each * present for each in down],
            mid_block_additional_residual=middle * present,
        ).sample


BASELINES: Mapping[str, type[Baseline]] = {
    "ip_adapter": IPAdapterStyle,
    "t2i_adapter": T2IAdapterStyle,
    "controlnet": ControlNetStyle,
}


@torch.no_grad()
def hints_of(references: References) -> dict[str, torch.Tensor]:
    """What T2I-Adapter and ControlNet are given: colors of 8 x 8 cells (B, 3, H, W), luminance and edges (B, 1, H, W)."""
    size = references["color"].shape[2:]
    cells = F.interpolate(F.adaptive_avg_pool2d(references["color"], PALETTE_SIDE), size=size, mode="nearest")
    weights = references["texture"].new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return {
        "color": cells,
        "texture": (references["texture"] * weights).sum(1, keepdim=True),
        "shape": canny(references["shape"]),
    }


def canny(pictures: torch.Tensor) -> torch.Tensor:
    """Canny edges of pictures (B, 3, H, W) in [0, 1]: (B, 1, H, W) of 0 and 1."""
    grids = (pictures.detach().cpu().permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
    # OpenCV 5.0's Canny damaged the heap at a picture of which 60 % are edges; with far more border than picture it does not.
    margin = max(grids.shape[1:3]) + 32
    edges = []
    for grid in grids:
        gray = cv2.cvtColor(grid, cv2.COLOR_RGB2GRAY)
        wide = cv2.copyMakeBorder(gray, margin, margin, margin, margin, cv2.BORDER_REPLICATE)
        edges.append(cv2.Canny(wide, *CANNY)[margin:-margin, margin:-margin])
    return (torch.from_numpy(np.stack(edges)).unsqueeze(1) / 255).to(pictures)
