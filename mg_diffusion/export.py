"""Turn weights into a repository that loads from disk or Hub without this package.

mg-diffusion export RUN/weights -o hub_cards/mg-bazaar --force --dtype float16 [--strength texture=1.5]
mg-diffusion export --base FOLDER_OR_HUB_ID --adapter FOLDER_OR_HUB_ID -o my-model
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError

from .model_card import PLACES
from .modeling_mg_adapter import MGAdapter
from .modeling_mg_encoder import MGEncoder
from .pipelines import MGPipeline, pipeline_class
from .recipe import check_free, save_json


@torch.no_grad()
def fold_strength(adapter: MGAdapter, strengths: dict[str, float]) -> None:
    """Multiply what a granularity adds to the UNet, so that strength 1 is from now on what `strengths` was.

    For a run after which another strength than 1 measures best on training pictures. Exact: every way into the UNet
    ends in a linear layer. What color and shape add together (the sketch) stays as it is.

    Raises:
        ValueError: for an unknown granularity, or a strength that is negative or no number.
    """
    adapter.strengths(strengths)  # checks them
    for name, factor in strengths.items():
        layers = [layer[name] for layer in adapter.to_v]
        if name != "color":
            layers += list(getattr(adapter, f"{name}_residuals").outs)
        for parameter in (parameter for layer in layers for parameter in layer.parameters()):
            parameter.mul_(factor)


def load(source: str | Path, dtype: torch.dtype, base: str | Path | None = None) -> MGPipeline:
    """The pipeline saved in `source`, or `base` with the encoder and the adapter saved in `source`.

    Raises:
        ValueError: if `source` does not hold them, or the adapter was made for another base.
    """
    if base is not None:
        kinds = {"mg_encoder": MGEncoder, "mg_adapter": MGAdapter}
        parts = {name: kind.from_pretrained(source, subfolder=name, dtype=dtype) for name, kind in kinds.items()}
        return pipeline_class(base).from_pretrained(base, dtype=dtype, **parts)
    if not Path(source, "model_index.json").is_file():
        raise ValueError(
            f"{str(source)!r} holds no saved pipeline (no model_index.json). Give the `weights` of a run of stage base; "
            f"those of stage adapter need the base they are for: --base BASE --adapter WEIGHTS."
        )
    return pipeline_class(source).from_pretrained(source, dtype=dtype)


def export(
    source: str | Path,
    target: str | Path,
    dtype: torch.dtype = torch.float16,
    strengths: dict[str, float] | None = None,
    base: str | Path | None = None,
    force: bool = False,
) -> float:
    """Load a saved pipeline, cast it, and write it with the code files it needs, those of the installed version.

    Files in `target` that a pipeline does not write (card, figures, measurements) stay. The configuration of the run
    that `source` belongs to, if it is there, is copied to `training.json` for the card, with `strengths` if they are
    given; see `fold_strength`.

    Args:
        source: folder of a pipeline; with `base`, folder or Hub id of an encoder and an adapter, each in the subfolder
            of its name.
        base: folder or Hub id of a Stable Diffusion checkpoint in diffusers' layout, which `source` steers. A safety
            checker in it is left behind.
        force: whether a pipeline that is in `target` already is overwritten.

    Returns:
        size of the weights in MB.

    Raises:
        ValueError: if `source` does not hold what it should, the adapter was made for another base, or `target` is one
            of the folders that are read, or holds a pipeline already.
        OSError: if it cannot be written, as on a disk that is full.
    """
    for place in (source, base):
        if place is not None and Path(place).resolve() == Path(target).resolve():
            raise ValueError(f"{str(place)!r} cannot be exported onto itself. Give another folder.")
    check_free(Path(target, "model_index.json"), force)
    pipeline = load(source, dtype, base)
    if strengths:
        adapter = MGAdapter.from_pretrained(source, subfolder="mg_adapter", dtype=torch.float32)
        fold_strength(adapter, strengths)
        pipeline.mg_adapter.load_state_dict(adapter.state_dict())  # rounded once, after the product
    try:
        pipeline.save_pretrained(target, safe_serialization=True)
    except SafetensorError as error:  # which is no OSError, although that is all that can be wrong here
        raise OSError(f"{str(target)!r} could not be written: {error}. Make room, and export again.") from error
    settings = Path(source).parent / "training_config.json"
    if settings.is_file():
        networks = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
        parameters = sum(parameter.numel() for network in networks for parameter in network.parameters())
        record = {**json.loads(settings.read_text(encoding="utf-8")), "parameters": parameters}
        if strengths:
            record["folded_strengths"] = strengths
        record = {name: value for name, value in record.items() if name not in PLACES}
        save_json(record, Path(target, "training.json"))
    return sum(path.stat().st_size for path in Path(target).rglob("*.safetensors")) / 1e6
