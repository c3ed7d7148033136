"""A lossless codec with the interface of `AutoencoderKL`: one level of the orthonormal Haar transform.

A small autoencoder trained with an L1 loss blurs texture away, and what the codec blurs away no texture strength can
give back. The Haar transform has nothing to train and loses nothing (Haar 1910; for diffusion in this space see
WaveDiff, arXiv 2211.16152, and "simple diffusion", arXiv 2301.11093).
"""

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, IdentityDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput


class AutoencoderHaar(ModelMixin, ConfigMixin):
    """Images (B, 3, H, W) in [-1, 1] <-> latents (B, 12, H/2, W/2); H and W must be even.

    Channels 0..2 are the averages of 2x2 pixels (times two), 3..11 the horizontal, vertical and diagonal details.

    Args:
        detail_gain: the details are multiplied by this. They are small in photographs; the gain lets the denoiser see
            and be punished for them at the same noise levels as the averages. 1.0 is the orthonormal transform.
        block_out_channels: unused widths; two entries tell pipelines that the spatial factor is 2, by the
            convention `2 ** (len(block_out_channels) - 1)`.
        scaling_factor, latent_channels: as in `AutoencoderKL`.
    """

    @register_to_config
    def __init__(
        self,
        detail_gain: float = 2.5,
        latent_channels: int = 12,
        scaling_factor: float = 1.0,
        block_out_channels: tuple[int, ...] = (12, 12),
        sample_size: int = 64,
    ):
        super().__init__()
        signs = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=torch.float32) / 2
        kernels = torch.zeros(12, 3, 2, 2, dtype=torch.float32)
        for band in range(4):
            for channel in range(3):
                kernels[3 * band + channel, channel] = signs[band].view(2, 2)
        gain = torch.ones(12, 1, 1, 1, dtype=torch.float32)
        gain[3:] = detail_gain
        self.register_buffer("analysis", kernels * gain, persistent=False)
        self.register_buffer("synthesis", kernels / gain, persistent=False)
        # `from_pretrained` wants at least one stored tensor, and pipelines read dtype and device from it.
        self.gain = torch.nn.Parameter(torch.tensor(float(detail_gain), dtype=torch.float32), requires_grad=False)

    def encode(self, x: torch.Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple:
        """Images (B, 3, H, W) to `latent_dist` over (B, 12, H/2, W/2).

        Raises:
            ValueError: if `x` is not (B, 3, even, even).
        """
        if x.ndim != 4 or x.shape[1] != 3 or x.shape[2] % 2 or x.shape[3] % 2:
            raise ValueError(
                f"AutoencoderHaar.encode expects images of shape (batch, 3, even height, even width), got "
                f"{tuple(x.shape)}. Resize or pad them to an even size."
            )
        posterior = IdentityDistribution(F.conv2d(x, self.analysis.to(x), stride=2))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def decode(
        self, z: torch.Tensor, return_dict: bool = True, generator: torch.Generator | None = None
    ) -> DecoderOutput | tuple[torch.Tensor]:
        """Latents (B, 12, h, w) to images (B, 3, 2h, 2w), not clamped."""
        sample = F.conv_transpose2d(z, self.synthesis.to(z), stride=2)
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def forward(self, sample: torch.Tensor, return_dict: bool = True) -> DecoderOutput | tuple[torch.Tensor]:
        return self.decode(self.encode(sample).latent_dist.mode(), return_dict=return_dict)
