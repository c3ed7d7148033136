"""Load a pipeline for the command line, the demo and the benchmarks: the embedded default, or any other model."""

import importlib.resources
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .importing import swiftly


if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


Pipeline = TypeVar("Pipeline")
EMBEDDED_NAME = "mg-bazaar"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
MANY_STEPS = "unet_many_steps"  # beside a distilled UNet the one that it learned from


def quiet() -> None:
    """Silence what diffusers and transformers report while they load; warnings and errors about our calls stay."""
    with swiftly():
        import diffusers.utils.logging
        import transformers.utils.logging

    transformers.utils.logging.set_verbosity_error()  # reports optional packages that nothing here needs
    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.disable_progress_bar()
    # diffusers asks huggingface_hub for what that no longer has.
    warnings.filterwarnings("ignore", message=".*local_dir_use_symlinks.*")


def embedded_model() -> Path:
    """The folder of the default model that comes with the package.

    Raises:
        ValueError: if the weights are not there, as in a checkout without them.
    """
    folder = Path(str(importlib.resources.files("mg_diffusion.embedded")))
    if not (folder / "model_index.json").is_file():
        raise ValueError(
            f"The embedded default model is not in this installation: {folder} has no model_index.json. Install the "
            f"package with its weights, or name a model of your own (--model FOLDER_OR_HUB_ID)."
        )
    return folder


def check_place(place: str | Path) -> None:
    """Raise a ValueError for what is neither here nor can be the id of a repository of the Hub."""
    if not Path(place).exists() and not HUB_ID.fullmatch(str(place)):
        raise ValueError(
            f"There is no folder {str(place)!r}, and a repository of the Hub would be named OWNER/NAME. Name a folder that is there."
        )


def many_steps_unet(place: str | Path, dtype: Any = None) -> "UNet2DConditionModel | None":
    """The UNet of many steps that a folder or a repository of the Hub has beside a distilled one; `None` without."""
    with swiftly():
        from diffusers import UNet2DConditionModel

    if Path(place).is_dir() and not Path(place, MANY_STEPS).is_dir():
        return None
    try:
        return UNet2DConditionModel.from_pretrained(
            place, subfolder=MANY_STEPS, low_cpu_mem_usage=False, torch_dtype=dtype
        )
    except OSError:
        return None


def model_name(model: str | None) -> str:
    """The name to report a model by: a Hub id as it is, a folder by its last part (its place is nobody's business)."""
    if model is None:
        return f"{EMBEDDED_NAME} (embedded)"
    return Path(model).resolve().name if Path(model).exists() else model


def steering_parts(adapter: str | None, encoder: str | None, dtype: dict[str, Any]) -> dict[str, Any]:
    """The `mg_adapter` and `mg_encoder` of these places, those that are asked for."""
    from . import MGAdapter, MGEncoder

    asked = {"mg_encoder": (MGEncoder, encoder or adapter), "mg_adapter": (MGAdapter, adapter)}
    return {
        name: kind.from_pretrained(place, subfolder=name, low_cpu_mem_usage=False, **dtype)
        for name, (kind, place) in asked.items()
        if place is not None
    }


def load_pipeline(
    kind: type[Pipeline],
    model: str | None = None,
    *,
    trust_remote_code: bool = False,
    device: str = "auto",
    many_steps: bool = False,
    adapter: str | None = None,
    encoder: str | None = None,
    runtime: str = "torch",
) -> Pipeline:
    """A pipeline of the class `kind`.

    Args:
        model: a folder written by `save_pretrained` or the id of a Hub repository; `None` is the embedded default.
        trust_remote_code: whether code that a foreign model brings along may run. Models of our own classes do not
            need it: their code is taken from the installed package.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto": CUDA where there is some.
        many_steps: the UNet that a distilled one has learned from, in its place.
        adapter: a folder or Hub repository whose `mg_adapter`, and the `mg_encoder` it reads by, take the model's place.
        encoder: one whose `mg_encoder` does.
        runtime: "torch", or "onnxruntime" to let ONNX Runtime compute the networks on a CPU (docs/few-steps.md).

    Raises:
        ValueError: if there is no such model, UNet, device or runtime.
        OSError: if the Hub cannot deliver it.
    """
    import torch  # late: whoever names a model need not wait for it

    if runtime not in ("torch", "onnxruntime"):
        raise ValueError(f'`runtime` must be "torch" or "onnxruntime", got {runtime!r}.')
    for given in (model, adapter, encoder):
        if given is not None:
            check_place(given)
    place = str(embedded_model()) if model is None else model
    try:
        target = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    except RuntimeError as error:
        raise ValueError(f'`device` must be "auto", "cpu", "cuda", "cuda:1" or "mps", got {device!r}.') from error
    if target.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"There is no CUDA device here for {device!r}. Leave the device out, or use cpu.")
    if runtime == "onnxruntime" and target.type != "cpu":
        raise ValueError(
            f'`runtime="onnxruntime"` computes on a CPU, and the device is {str(target)!r}. Pass `device="cpu"` too, or leave the '
            f"runtime out."
        )
    try:
        torch.zeros(1, device=target).item()  # tells of a GPU too many, and of kinds that are not here
    except Exception as error:  # of whatever type each kind of device has for it
        raise ValueError(
            f"Nothing can be computed on the device {device!r} here ({str(error).split('. ')[0]}). Leave the device out, or use cpu."
        ) from error
    # On a CPU half precision is slow where it works at all, and transformers would load it as the file has it.
    dtype = {"dtype": torch.float32} if target.type == "cpu" else {}
    parts = steering_parts(adapter, encoder, dtype)
    parts |= {"unet": many_steps_unet(place, **dtype)} if many_steps else {}
    if many_steps and parts["unet"] is None:
        raise ValueError(
            f"{model_name(model)} has no {MANY_STEPS} beside its UNet: it was not distilled, or only the distilled UNet was "
            f"saved. Leave `many_steps` out."
        )
    with swiftly():
        pipe = kind.from_pretrained(place, trust_remote_code=trust_remote_code, **dtype, **parts).to(target)
    if runtime == "onnxruntime":
        from .onnx_runtime import use_onnx_runtime

        use_onnx_runtime(pipe)
    return pipe
