"""Saving a pipeline with the code it needs, so that it loads where no package of ours is installed; and loading it."""

import importlib
import inspect
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from ..shipping import bundler_of, shippable_source


# Arguments of `from_pretrained` that say where an index lies.
PLACES = ("cache_dir", "force_download", "proxies", "token", "local_files_only", "revision")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


class SavedPipeline:
    """Saving and loading, as remote code or by an explicit class."""

    def custom_components(self) -> dict[str, type]:
        """Classes, by component, that neither diffusers nor transformers can load without their code."""
        kinds = {
            name: type(getattr(part, "_orig_mod", part)) for name, part in self.components.items() if part is not None
        }
        return {
            name: k for name, k in kinds.items() if k.__module__.split(".")[0] not in ("diffusers", "transformers")
        }

    def to_json_string(self) -> str:
        """The index of an exported repository: `[file, class]` for whatever is loaded from its own code."""
        index = json.loads(super().to_json_string())
        index.pop("_name_or_path", None)  # a folder on the machine it was saved on
        for name, kind in {"_class_name": type(self), **self.custom_components()}.items():
            index[name] = [Path(inspect.getsourcefile(kind)).stem, kind.__name__]
        return json.dumps(index, indent=2, sort_keys=True) + "\n"

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """As in `DiffusionPipeline`.

        Raises:
            ValueError: while a LoRA is in a model, whose file nothing could read.
        """
        self.check_without_loras()
        super().save_pretrained(save_directory, *args, **kwargs)

    def check_without_loras(self) -> None:
        """Raise a ValueError where a component has layers that a LoRA was wrapped around, as peft does."""
        for name, part in self.components.items():
            if isinstance(part, torch.nn.Module) and any(hasattr(layer, "base_layer") for layer in part.modules()):
                raise ValueError(
                    f"`{name}` has a LoRA in it, and such a model is saved under names that nothing loads. Take it out by "
                    f"`unload_lora_weights()`, after `fuse_lora()` if it is to stay; `save_lora_weights` saves LoRAs."
                )

    def save_config(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Write the index and the code it names, so that the folder loads where no package of ours is installed.

        Everything that saves a pipeline comes by here, after its components were saved.
        """
        folder, source = Path(save_directory), Path(inspect.getsourcefile(type(self)))
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / source.name, shippable_source(type(self)))
        # What `custom_pipeline=` loads of a folder or a Hub repository.
        _write(folder / "pipeline.py", f"from .{source.stem} import {type(self).__name__}\n")
        for name in set(self._saved_together) - {source.stem}:
            self._save_sibling(folder / f"{name}.py", source)
        for name, kind in self.custom_components().items():
            (folder / name).mkdir(exist_ok=True)
            _write(folder / name / Path(inspect.getsourcefile(kind)).name, shippable_source(kind))
        for path in folder.glob("*/config.json"):
            config = json.loads(path.read_text(encoding="utf-8"))
            if config.pop("_name_or_path", None) is not None:
                _write(path, json.dumps(config, indent=2, sort_keys=True) + "\n")
        super().save_config(save_directory, **kwargs)

    def _save_sibling(self, target: Path, source: Path) -> None:
        """The pipeline for the other task, so that one repository serves both."""
        package = type(self).__module__.rpartition(".")[0]
        bundler = bundler_of(package)
        if bundler is not None:
            _write(target, bundler.bundle(f"{package}.{target.stem}"))
            return
        beside = [source.parent, Path(self.name_or_path or source.parent)]
        if package.startswith("diffusers_modules."):
            beside.reverse()  # local remote code lies in one flat folder, with files of other repositories
        found = next((place / target.name for place in beside if (place / target.name).is_file()), None)
        if found is not None and found.resolve() != target.resolve():
            shutil.copyfile(found, target)

    @classmethod
    def _dict_from_json_file(cls, json_file: str | os.PathLike) -> dict[str, Any]:
        """An index read by an explicit class is read as that class's own; `DiffusionPipeline` obeys what it names."""
        index = super()._dict_from_json_file(json_file)
        if not isinstance(index, dict):
            raise ValueError(
                f"{os.fspath(json_file)!r} must hold an index of components, a JSON object, got {type(index).__name__}. Save the "
                f"pipeline anew, or copy or download it again."
            )
        return {**index, "_class_name": cls.__name__} if isinstance(index.get("_class_name"), list) else index

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> Any:
        """As in `ConfigMixin`; models whose code the installed package has too are loaded from there, not as remote code."""
        config = super().load_config(*args, **kwargs)
        package = cls.__module__.rpartition(".pipelines.")[0]
        for entry in (config[0] if isinstance(config, tuple) else config).values():
            if isinstance(entry, list) and f"{package}.{entry[0]}" in sys.modules:
                entry[0] = f"{package}.{entry[0]}"
        return config

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> DiffusionPipeline:
        """As in `DiffusionPipeline`; a Stable Diffusion as it is gets an encoder, so that references steer it untrained.

        By composed start and feature guidance, which read the encoder's views and none of its weights. `mg_encoder=None` is
        for a base without.
        """
        pipe = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        if "mg_encoder" in kwargs or pipe.mg_encoder is not None:
            return pipe
        asked = {name: kwargs[name] for name in PLACES if name in kwargs}
        return pipe if "mg_encoder" in cls.load_config(pretrained_model_name_or_path, **asked) else pipe._with_views()

    def _with_views(self) -> DiffusionPipeline:
        """With an encoder, if there is no adapter either (code of a repository brings what it needs along)."""
        package = type(self).__module__.rpartition(".pipelines.")[0]
        if (
            package
            and self.mg_encoder is None
            and self.mg_adapter is None
            and self.unet is not None
            and self.unet.config.sample_size
        ):
            kind = importlib.import_module(f"{package}.modeling_mg_encoder").MGEncoder
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(0)  # no device's; a card is for encoders of the same weights
                encoder = kind.from_unet(self.bare_unet)
            self.register_modules(mg_encoder=encoder.to(self.device))
        return self

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs: Any) -> DiffusionPipeline:
        """A pipeline of this class that shares the components of `pipeline`; those in `kwargs` take their places.

        Unlike in `DiffusionPipeline`, models of our own classes come along, and nothing is cast (the components would
        change in `pipeline` too) unless `dtype` (or `torch_dtype`, as it was named before) is passed.

        Raises:
            ValueError: for both of them, where they differ, for what is no type, and for what is no pipeline.
        """
        if not isinstance(pipeline, DiffusionPipeline):
            raise ValueError(f"`from_pipe` takes a pipeline of diffusers, got {type(pipeline).__name__}.")
        dtype, older = (kwargs.pop(name, None) for name in ("dtype", "torch_dtype"))
        if dtype is not None and older is not None and dtype != older:
            raise ValueError(f"`dtype` is {dtype} and `torch_dtype`, its older name, {older}. Give one of them.")
        dtype = older if dtype is None else dtype
        if not isinstance(dtype, (torch.dtype, type(None))):
            raise ValueError(f"`dtype` must be a type of torch, such as `torch.float16`, got {dtype!r}.")
        known = {**pipeline.config, **pipeline.components}
        parameters = {n: one for n, one in inspect.signature(cls).parameters.items() if n not in kwargs}
        shared = {n: known.get(n) for n, one in parameters.items() if n in known or one.default is one.empty}
        made = cls(**shared, **kwargs)
        made.register_to_config(_name_or_path=pipeline.name_or_path)
        if "mg_encoder" not in kwargs and "mg_encoder" not in known:
            made._with_views()
        return made if dtype is None else made.to(dtype)
