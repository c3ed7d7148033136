"""What the cells load, and their outcomes; each is made once, when it is first asked for."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline, StableDiffusionPipeline
from hub_stand_in import HubStandIn
from pipelines.tiny import tiny_components

from mg_diffusion import MGAdapter, MGEncoder, MGInpaintPipeline, MGPipeline
from mg_diffusion.export import export, load

from .matrix import MATRIX, PAGE, Cell, introduction
from .single_file import save_single_file
from .worker import outcome


WORKER = Path(__file__).with_name("worker.py")
REPOSITORIES = ("base", "repo", "alone")
ENVIRONMENT = {
    "HF_TOKEN": "a-token",
    "CUDA_VISIBLE_DEVICES": "",  # where there is one, device maps would choose it
    "PYTHONWARNINGS": "ignore",
}
NO_CHECKER = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> Path:
    """A stock base, the same as one file, encoder and adapter, the export of both in two types, one with our VAE."""
    folder = tmp_path_factory.mktemp("loading")
    components = tiny_components(folder)
    for name in ("mg_encoder", "mg_adapter"):
        components.pop(name).save_pretrained(folder / "alone" / name)
    stock = StableDiffusionPipeline(**components, **NO_CHECKER)
    stock.save_pretrained(folder / "base")
    save_single_file(stock, folder / "base.safetensors")
    load(folder / "alone", torch.float16, folder / "base").save_pretrained(folder / "repo", variant="fp16")
    # After the variant: transformers loads a text encoder in the type of its last save, and that is the plain one then.
    export(folder / "alone", folder / "repo", torch.float32, base=folder / "base", force=True)
    MGPipeline(**tiny_components(folder, is_inpainting=True, vae="haar")).save_pretrained(folder / "haar")
    return folder


@pytest.fixture(scope="session")
def hub(folders) -> Iterator[HubStandIn]:
    with HubStandIn() as hub:
        for name in REPOSITORIES:
            files = (path for path in (folders / name).rglob("*") if path.is_file())
            hub.files[f"someone/{name}"] = {
                path.relative_to(folders / name).as_posix(): path.read_bytes() for path in files
            }
        yield hub


def job_of(cells: list[Cell], place: str, is_blocked: bool, folders: Path) -> dict[str, Any]:
    """What the worker reads: the scripts, and what their names stand for."""
    load = "DiffusionPipeline.from_pretrained(repo, trust_remote_code=True)"
    lines = introduction(PAGE.read_text(encoding="utf-8"))
    lines += f"pipe = {load if is_blocked else 'MGPipeline.from_pretrained(repo)'}\n"
    lines += "stock = StableDiffusionPipeline.from_pretrained(base)\n"
    names = {name: str(folders / name) if place == "folder" else f"someone/{name}" for name in REPOSITORIES}
    names |= {"file": str(folders / "base.safetensors"), "code": str(folders / "haar"), "haar": str(folders / "haar")}
    return {
        "introduction": lines,
        "names": names,
        "scripts": [cell.script for cell in cells],
        "is_blocked": is_blocked,
    }


@pytest.fixture(scope="session")
def outcome_of(folders, hub, tmp_path_factory) -> Iterator[Callable[[Cell], dict[str, Any]]]:
    """outcome_of(cell): of what is asked for first, all cells of the same place are run."""
    scratch = tmp_path_factory.mktemp("outcomes")
    found: dict[str, dict[str, Any]] = {}

    def run(place: str, is_blocked: bool) -> None:
        cells = [cell for cell in MATRIX if (cell.place, cell.is_blocked) == (place, is_blocked)]
        results = scratch / f"{place}_{is_blocked}"
        results.mkdir()
        job = {**job_of(cells, place, is_blocked, folders), "results": str(results)}
        (results / "job.json").write_text(json.dumps(job), encoding="utf-8")
        home = scratch / f"home_{'Hub' if place == 'offline' else place}_{is_blocked}"
        own = {"HF_HOME": str(home), **hub.environment(is_offline=place != "Hub")}
        done = subprocess.run(
            [sys.executable, str(WORKER), str(results / "job.json")],
            cwd=results,
            env={**os.environ, **ENVIRONMENT, **own},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        for number, cell in enumerate(cells):
            path = results / f"{number}.pt"
            assert path.is_file(), f"{cell.id} ended without a result:\n{done.stderr}"
            found[cell.id] = torch.load(path)

    def look_up(cell: Cell) -> dict[str, Any]:
        if cell.id not in found:
            if cell.place == "offline":  # what it finds in the cache, the same lines have left there
                look_up(next(c for c in MATRIX if (c.place, c.is_blocked) == ("Hub", cell.is_blocked)))
            run(cell.place, cell.is_blocked)
        return found[cell.id]

    yield look_up
    shutil.rmtree(scratch)


@pytest.fixture(scope="session")
def expected(folders) -> dict[str, dict[str, Any]]:
    """Right outcomes, of what was loaded from folders in this process, by what the page calls them."""
    ours, stock = (MGPipeline, MGInpaintPipeline), (StableDiffusionPipeline, StableDiffusionInpaintPipeline)
    made = {kind.__name__: kind.from_pretrained(folders / "base", **NO_CHECKER) for kind in stock}
    for kind in ours:
        name = kind.__name__
        made[name] = kind.from_pretrained(folders / "repo")
        made[f"{name} in float16"] = kind.from_pretrained(folders / "repo", dtype=torch.float16)
        made[f"{name} with our VAE"] = kind.from_pretrained(folders / "haar")
        made[f"{name} without adapter"] = kind.from_pretrained(folders / "base")
    made["MGEncoder"] = MGEncoder.from_pretrained(folders / "alone", subfolder="mg_encoder")
    made["MGAdapter"] = MGAdapter.from_pretrained(folders / "alone", subfolder="mg_adapter")
    return {name: outcome(one) for name, one in made.items()}
