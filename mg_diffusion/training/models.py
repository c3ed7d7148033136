"""The networks of the embedded default, and the one module that holds all that is trained."""

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from tokenizers import pre_tokenizers
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from mg_diffusion.modeling_autoencoder_haar import AutoencoderHaar
from mg_diffusion.modeling_mg_adapter import MGAdapter
from mg_diffusion.modeling_mg_encoder import MGEncoder
from mg_diffusion.octaves import build_scheduler


MAX_TOKENS = 24
BASE = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
PARTS = ("mg_encoder", "mg_adapter")


def learn_merges(captions: list[str], count: int) -> list[tuple[str, str]]:
    """Up to `count` byte-pair merges (Sennrich et al., arXiv 1508.07909) of the 5000 most frequent words.

    Ties go to the pair that is later in the alphabet. The trainer of `tokenizers` breaks them, and numbers the ends of
    words, in another order in every process; a resumed run would read its captions with other numbers.
    """
    split = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str
    counts = Counter(word for caption in captions for word in caption.lower().split())
    pieces: Counter[tuple[str, ...]] = Counter()
    for word, number in counts.most_common(5000):
        for piece, _ in split(word):
            pieces[(*piece[:-1], piece[-1] + "</w>")] += number
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for parts, number in pieces.items():
            for pair in zip(parts, parts[1:], strict=False):
                pairs[pair] += number
        if not pairs:
            break
        merges.append(max(pairs, key=lambda pair: (pairs[pair], pair)))
        pieces = Counter({_merge(parts, merges[-1]): number for parts, number in pieces.items()})
    return merges


def _merge(parts: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    for part in parts:
        if merged and (merged[-1], part) == pair:
            merged[-1] += part
        else:
            merged.append(part)
    return tuple(merged)


def build_tokenizer(captions: list[str], vocab_size: int = 1024) -> CLIPTokenizer:
    """A `CLIPTokenizer` whose byte-pair merges are learned from the captions; a function of them alone."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # Every byte has a form that ends a word, or unseen words would fall apart into unknown tokens.
    words = ["<|startoftext|>", "<|endoftext|>", *alphabet, *(letter + "</w>" for letter in alphabet)]
    merges = learn_merges(captions, vocab_size - len(words))
    words += dict.fromkeys("".join(pair) for pair in merges)
    with tempfile.TemporaryDirectory() as folder:
        vocab, lines = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        vocab.write_text(json.dumps({word: number for number, word in enumerate(words)}), encoding="utf-8")
        text = "".join(f"{first} {second}\n" for first, second in merges)
        lines.write_text("#version: 0.2\n" + text, encoding="utf-8")
        return CLIPTokenizer.from_pretrained(folder, model_max_length=MAX_TOKENS, pad_token="<|endoftext|>")


def build_text_encoder(tokenizer: CLIPTokenizer, width: int) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            projection_dim=width,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_unet(latent_channels: int, sample_size: int, widths: Sequence[int], text_width: int) -> UNet2DConditionModel:
    """A miniature Stable Diffusion UNet with inpainting channels: latents, mask, latents of the masked image.

    The first block attends only to text and references, not to itself: at full size self-attention would cost more
    than all convolutions, while the block type is what lets residuals reach the full resolution.
    """
    return UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=2 * latent_channels + 1,
        out_channels=latent_channels,
        block_out_channels=tuple(widths),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * len(widths),
        up_block_types=("CrossAttnUpBlock2D",) * (len(widths) - 1) + ("UpBlock2D",),
        only_cross_attention=(True,) + (False,) * (len(widths) - 1),
        cross_attention_dim=text_width,
        attention_head_dim=2,
        norm_num_groups=16,
    )


def build_components(
    captions: list[str], resolution: int, widths: Sequence[int], text_width: int, vae: str | None = None
) -> dict[str, Any]:
    """New components of the embedded default; keys are those of `MGPipeline`.

    Args:
        captions: of which the vocabulary is made.
        widths: of the levels of the UNet.
        vae: folder of an `AutoencoderKL`; without it the Haar codec is used.

    Raises:
        ValueError: if `vae` holds none.
    """
    try:
        codec = AutoencoderKL.from_pretrained(vae) if vae else AutoencoderHaar(sample_size=resolution)
    except OSError as error:
        raise ValueError(f"No AutoencoderKL can be loaded from {vae!r} (--vae): {error}") from error
    factor = 2 ** (len(codec.config.block_out_channels) - 1)
    tokenizer = build_tokenizer(captions)
    unet = build_unet(codec.config.latent_channels, resolution // factor, widths, text_width)
    encoder = MGEncoder(sample_size=resolution)
    return {
        "vae": codec.requires_grad_(False),
        "text_encoder": build_text_encoder(tokenizer, text_width),
        "tokenizer": tokenizer,
        "unet": unet,
        "scheduler": build_scheduler(),
        "mg_encoder": encoder,
        "mg_adapter": MGAdapter.from_unet(unet, encoder, token_dim=text_width, map_stride=factor),
    }


class TextModel(nn.Module):
    """UNet and text encoder in one module."""

    def __init__(self, unet: nn.Module, text_encoder: nn.Module):
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder

    def forward(self, unet_input: torch.Tensor, timesteps: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """The UNet's prediction (B, C, h, w) for unet_input (B, 2C + 1, h, w): noisy latents, mask, masked latents."""
        return self.unet(unet_input, timesteps, self.text_encoder(input_ids).last_hidden_state).sample


class ConditionedUNet(nn.Module):
    """UNet, encoder and adapter in one module, so that DDP wraps them together."""

    def __init__(self, unet: nn.Module, mg_encoder: nn.Module, mg_adapter: nn.Module):
        super().__init__()
        self.unet, self.mg_encoder, self.mg_adapter = unet, mg_encoder, mg_adapter

    def forward(
        self,
        unet_input: torch.Tensor,
        timesteps: torch.Tensor,
        text: torch.Tensor,
        views: dict[str, dict[str, torch.Tensor]],
        turns: torch.Tensor,
        sketch: torch.Tensor,
        has_sketch: torch.Tensor,
        present: torch.Tensor,
        fusion_scale: float | torch.Tensor,
        added: dict[str, torch.Tensor] | None = None,
        timestep_cond: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The UNet's prediction (B, C, h, w); must run inside `mg_adapter.attach(unet)`.

        Args:
            unet_input: (B, C or 2C + 1, h, w), noisy latents and, of an inpainting UNet, mask and masked latents.
            text: (B, tokens, width) from the text encoder.
            turns: (B, 3, 3), which region gets which color.
            sketch, has_sketch: (B, 3, S, S) Lab and (B,) bool, for edits without references, see `MGAdapter.sketch`.
            present: (B, G) bool, references that were not dropped.
            fusion_scale: of all samples, or (B, 1, 1, 1).
            added: `added_cond_kwargs` of Stable Diffusion XL.
            timestep_cond: (B, width), the guidance, of a UNet that reads it.
        """
        laid = (views, turns, sketch, has_sketch, present, fusion_scale)
        attention, residuals = self.condition(self.unet, unet_input.shape[2:], *laid)
        return self.unet(
            unet_input,
            timesteps,
            text,
            added_cond_kwargs=added,
            cross_attention_kwargs={"ip_hidden_states": attention},
            timestep_cond=timestep_cond,
            down_intrablock_additional_residuals=residuals,
        ).sample

    def condition(
        self,
        unet: nn.Module,
        latent_size: tuple[int, int],
        views: dict[str, dict[str, torch.Tensor]],
        turns: torch.Tensor,
        sketch: torch.Tensor,
        has_sketch: torch.Tensor,
        present: torch.Tensor,
        fusion_scale: float | torch.Tensor,
    ) -> tuple[Any, list[torch.Tensor]]:
        """What a UNet like the own one gets beside the text; arguments as of `forward`."""
        features = self.mg_encoder(views)
        features["shape"][0] |= {"turn": turns, "sketch": sketch, "has_sketch": has_sketch}
        attention, residuals = self.mg_adapter.condition(unet, features, present.float(), latent_size, fusion_scale)
        # A base in low precision does not take others.
        return attention, [residual.to(unet.dtype) for residual in residuals]


class TrainedModel(ConditionedUNet):
    """The same with the text encoder, which is trained along: `text` is (B, tokens) of numbers."""

    def __init__(self, unet: nn.Module, text_encoder: nn.Module, mg_encoder: nn.Module, mg_adapter: nn.Module):
        super().__init__(unet, mg_encoder, mg_adapter)
        self.text_encoder = text_encoder

    @classmethod
    def of(cls, components: dict[str, Any]) -> Self:
        """The module of the components of a pipeline."""
        return cls(*(components[name] for name in ("unet", "text_encoder", *PARTS)))

    def forward(
        self, unet_input: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor, *rest: Any
    ) -> torch.Tensor:
        return super().forward(unet_input, timesteps, self.text_encoder(text).last_hidden_state, *rest)
