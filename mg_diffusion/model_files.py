"""How our models lie on disk: weights and configuration as of diffusers, and the code that reads them beside them."""

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from diffusers.configuration_utils import register_to_config

from .shipping import shippable_source


Init = TypeVar("Init", bound=Callable[..., None])


def registered(init: Init) -> Init:
    """As `register_to_config` of diffusers, which has no types: a checker would not know how a model is made, nor what it is."""
    return register_to_config(init)


class SavedWithCode:
    """A mixin for `ModelMixin` and `ConfigMixin`, to stand before them. Loading never ends in random weights."""

    _auto_class = "AutoModel"  # what `register_for_auto_class` sets

    def save_config(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """As in `ConfigMixin`, with the code beside it: `AutoModel` loads the folder where no package is installed."""
        os.makedirs(save_directory, exist_ok=True)
        code = Path(save_directory, Path(inspect.getsourcefile(type(self))).name)
        code.write_text(shippable_source(type(self)), encoding="utf-8")
        super().save_config(save_directory, **kwargs)

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> tuple:
        """As in `ConfigMixin`; that `config_dict` names the file of the class for `AutoModel` is no setting."""
        settings = {name: value for name, value in config_dict.items() if name != "auto_map"}
        return super().extract_init_dict(settings, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Self:
        """As `ModelMixin.from_pretrained`, but weights that are missing or foreign are an error, not a warning.

        Raises:
            ValueError: if the folder or Hub repository is missing or damaged, or holds another model.
        """
        place = "/".join(str(part) for part in (pretrained_model_name_or_path, kwargs.get("subfolder")) if part)
        remedy = (
            f"An {cls.__name__} is a folder written by `save_pretrained`, with config.json and "
            f"diffusion_pytorch_model.safetensors; check the path and `subfolder`, or copy or download it again."
        )
        with_info = kwargs.pop("output_loading_info", False)
        try:
            model, info = super().from_pretrained(pretrained_model_name_or_path, output_loading_info=True, **kwargs)
        except torch.OutOfMemoryError:
            raise
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"Cannot load {cls.__name__} from {place!r}: {error}\n{remedy}") from error
        missing, unexpected = (sorted(info.get(key, [])) for key in ("missing_keys", "unexpected_keys"))
        if missing or unexpected:
            raise ValueError(
                f"The weights in {place!r} are not those of this {cls.__name__}: {len(missing)} are missing "
                f"({', '.join(missing[:2])}), {len(unexpected)} are unknown ({', '.join(unexpected[:2])}). {remedy}"
            )
        return (model, info) if with_info else model
