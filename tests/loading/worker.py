"""What runs in a fresh process: scripts, each in a fork that knows torch, diffusers and transformers and nothing else.

    python worker.py JOB.json

A process takes seconds to import diffusers, a fork takes none, so that every cell of the matrix can have its own. The
functions serve in the process of the tests too.
"""

import ast
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, StableDiffusionInpaintPipeline  # noqa: F401 (before any fork, to save time)
from transformers.conversion_mapping import get_checkpoint_conversion_mapping


REFERENCES = {"color": ["#c1121f:2", "#fdf0d5"], "shape": torch.linspace(0, 1, 3 * 32 * 32).view(3, 32, 32) ** 2}


class Blocker:
    """An import hook that makes the package look as if it were not installed."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.split(".")[0] == "mg_diffusion":
            raise ModuleNotFoundError(f"No module named {name!r}")


class Names(dict):
    """Names for a script; those that the page introduces in its block of code are made when they are first used."""

    def __init__(self, introduction: str, given: dict[str, Any]):
        super().__init__(given)
        self.modules, self.values = {}, {}
        for node in ast.parse(introduction).body:
            if isinstance(node, ast.ImportFrom):
                self.modules |= {alias.name: node.module for alias in node.names}
            elif isinstance(node, ast.Assign):
                self.values[node.targets[0].id] = ast.unparse(node.value)

    def __missing__(self, name: str) -> Any:
        if name in self.modules:
            self[name] = getattr(importlib.import_module(self.modules[name]), name)
        elif name in self.values:
            self[name] = eval(self.values[name], globals(), self)
        else:
            raise KeyError(name)
        return self[name]


def sample(pipe: DiffusionPipeline, **options: Any) -> torch.Tensor:
    """Latents of two steps, with references where there is an adapter."""
    pipe.set_progress_bar_config(disable=True)
    if getattr(pipe, "mg_adapter", None) is not None:
        options.setdefault("reference_image", REFERENCES)
    options = {"num_inference_steps": 2, "output_type": "latent", **options}
    return pipe("a red flower", generator=torch.Generator().manual_seed(0), **options).images


def edit(pipe: DiffusionPipeline) -> torch.Tensor:
    """The same, where a part of a picture is repainted."""
    image = torch.linspace(0, 1, 3 * 16 * 16).view(3, 16, 16)
    mask = torch.zeros(16, 16)
    mask[4:12, 6:15] = 1
    return sample(pipe, image=image, mask_image=mask)


def outcome(made: Any) -> dict[str, Any]:
    """What tells whether something came back unharmed: latents of a pipeline, weights of a model."""
    name = type(made).__name__
    if not isinstance(made, DiffusionPipeline):
        return {"class": name, "weights": made.state_dict()}
    networks = {key: part for key, part in made.components.items() if isinstance(part, torch.nn.Module)}
    dtypes = {str(parameter.dtype) for part in networks.values() for parameter in part.parameters()}
    return {"class": name, "latents": (edit if "Inpaint" in name else sample)(made), "dtypes": dtypes}


def run(script: str, names: Names) -> dict[str, Any]:
    """Execute a script; its last line is an expression, whose value is what it made."""
    *lines, last = ast.parse(script).body
    try:
        exec(compile(ast.Module(lines, []), "<script>", "exec"), globals(), names)
        return outcome(eval(compile(ast.Expression(last.value), "<script>", "eval"), globals(), names))
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def main(job: dict[str, Any]) -> None:
    if job["is_blocked"]:
        sys.meta_path.insert(0, Blocker())
    get_checkpoint_conversion_mapping("clip_text_model")  # compiles hundreds of patterns, else in every fork
    for number, script in enumerate(job["scripts"]):
        if (child := os.fork()) == 0:
            place = str(Path(job["results"], f"place_{number}"))
            made = run(script, Names(job["introduction"], {**job["names"], "place": place}))
            torch.save(made, Path(job["results"], f"{number}.pt"))
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
