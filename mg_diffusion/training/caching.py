"""What always comes out alike, kept on disk: views of pictures, their latents, embeddings of captions."""

import hashlib
import uuid
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm import tqdm

from .fingerprints import code_fingerprint, model_fingerprint


Tensors = dict[str, torch.Tensor]


def cached(folder: str | Path | None, kind: str, identity: Sequence[str], make: Callable[[], Tensors]) -> Tensors:
    """The tensors of the file of a `kind` that depend on `identity` alone, made if it is not there or is damaged.

    Without a folder they are made and not stored. Processes that make the same file at once do not disturb each other.
    """
    if folder is None:
        return make()
    digest = hashlib.sha256("\n".join(identity).encode()).hexdigest()[:16]
    path = Path(folder, f"{kind}-{digest}.safetensors")
    if path.exists():
        try:
            return load_file(path)  # memory-mapped: what is read is what is asked for
        except SafetensorError as error:
            warnings.warn(f"{str(path)!r} is damaged ({error}) and is made anew.", stacklevel=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{uuid.uuid4().hex}")  # a run that ends here leaves no half of a file
    try:
        save_file({name: value.contiguous() for name, value in make().items()}, aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return load_file(path)


@torch.no_grad()
def distribution_of(vae: nn.Module, images: torch.Tensor) -> Tensors:
    """Images (N, 3, R, R) in [-1, 1] to `mean` and `deviation` of their latents (N, C, h, w), half, on the CPU."""
    with torch.autocast(images.device.type, enabled=False):
        found = vae.encode(images.to(vae.dtype)).latent_dist
    mean = found.mode()
    # A codec without loss has no deviation.
    return {"mean": mean.half().cpu(), "deviation": getattr(found, "std", torch.zeros_like(mean)).half().cpu()}


def latents_of(vae: nn.Module, images: torch.Tensor, device: torch.device) -> Tensors:
    """Images (N, 3, R, R) uint8 to `mean` and `deviation` (N, 2, C, h, w) half, the second of each pair mirrored."""
    found = [
        distribution_of(vae, torch.stack([image, image.flip(-1)]).to(device).float() / 127.5 - 1)
        for image in tqdm(images, desc="latents", mininterval=5)
    ]
    return {name: torch.stack([one[name] for one in found]) for name in ("mean", "deviation")}


class CachedCrossings:
    """Latents of crossed pictures, each encoded when it is drawn for the first time and kept in memory.

    One at a time, because what else is in a batch changes the last bits: a resumed run, which has none of them yet, would
    otherwise not go on exactly.
    """

    def __init__(self, vae: nn.Module):
        self.vae, self.found = vae, {}

    def __call__(self, crossings: Sequence[int], images: torch.Tensor) -> Tensors:
        """Numbers of crossings and their images (B, 3, R, R) in [-1, 1] to `mean` and `deviation` (B, C, h, w)."""
        for row, crossing in enumerate(crossings):
            if crossing not in self.found:
                self.found[crossing] = distribution_of(self.vae, images[row : row + 1])
        return {name: torch.cat([self.found[one][name] for one in crossings]) for name in ("mean", "deviation")}


@torch.no_grad()
def text_of(pipeline: Any, captions: Sequence[str], device: torch.device) -> Tensors:
    """Captions to `text` (B, tokens, width) and, of Stable Diffusion XL, `pooled` (B, width)."""
    second = {"prompt_2": None} if "tokenizer_2" in pipeline.components else {}
    text, _, *pooled = pipeline.encode_prompt(
        list(captions), device=device, num_images_per_prompt=1, do_classifier_free_guidance=False, **second
    )
    return {"text": text, **({"pooled": pooled[0]} if pooled else {})}


class CachedText:
    """Embeddings of all captions of a run, by caption."""

    def __init__(self, folder: str | Path, pipeline: Any, captions: Sequence[str], device: torch.device):
        known = sorted({"", *captions})
        encoders = [part for name, part in pipeline.components.items() if name.startswith("text_encoder") and part]

        def make() -> Tensors:
            rows = [text_of(pipeline, [one], device) for one in tqdm(known, desc="captions", mininterval=5)]
            return {name: torch.cat([row[name].cpu() for row in rows]) for name in rows[0]}

        self.rows = {caption: row for row, caption in enumerate(known)}
        tokenizers = [part for name, part in pipeline.components.items() if name.startswith("tokenizer") and part]
        words = [str([sorted(one.get_vocab().items()), one.model_max_length]) for one in tokenizers]
        code = code_fingerprint(text_of, type(pipeline), *map(type, [*encoders, *tokenizers]))
        self.tensors = cached(folder, "text", [code, *map(model_fingerprint, encoders), *words, *known], make)

    def __call__(self, captions: Sequence[str], device: torch.device) -> Tensors:
        places = torch.tensor([self.rows[caption] for caption in captions])
        return {name: value[places].to(device) for name, value in self.tensors.items()}
