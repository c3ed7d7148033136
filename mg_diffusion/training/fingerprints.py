"""Fingerprints: by which a cache knows what it holds, and a resumed run its pictures."""

import hashlib
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from torch import nn

from mg_diffusion.bundling import bundle_of


def picture_fingerprint(pictures: torch.Tensor, captions: Sequence[str] = ()) -> str:
    """Of pictures, uint8 of any shape, and their captions."""
    digest = hashlib.sha256(json.dumps([list(pictures.shape), list(captions)]).encode())
    digest.update(pictures.contiguous().numpy())
    return digest.hexdigest()


def model_fingerprint(model: nn.Module) -> str:
    """Of a model's configuration and type, and of some numbers of each of its weights."""
    config = model.config.to_dict() if hasattr(model.config, "to_dict") else dict(model.config)
    config.pop("_name_or_path", None)
    digest = hashlib.sha256(json.dumps([config, str(model.dtype)], sort_keys=True, default=str).encode())
    for name, value in sorted(model.state_dict().items()):
        numbers = value.flatten()[:: max(1, value.numel() // 64)].tolist()
        digest.update(f"{name} {tuple(value.shape)} {numbers}".encode())
    return digest.hexdigest()


def code_fingerprint(*parts: Any) -> str:
    """Of the code that something is made with.

    Args:
        parts: modules, classes or functions; each stands for the whole file that it is written in, a class of ours for all
            the files that it is shipped of.
    """
    versions = [library.__version__ for library in (torch, np, diffusers, transformers)]
    sources = [str(versions), *sorted({_source_of(inspect.unwrap(part)) for part in parts})]
    return hashlib.sha256("\n".join(sources).encode()).hexdigest()


def _source_of(part: Any) -> str:
    if inspect.isclass(part) and part.__module__.startswith("mg_diffusion."):
        return bundle_of(part)
    return Path(inspect.getsourcefile(part)).read_text(encoding="utf-8")
