"""Turn a saved `MGPipeline` into a modular repository, which loads from disk or Hub without this package.

python -m mg_diffusion.export_modular hub_cards/mg-bazaar TARGET [--repo-id OWNER/NAME] [--without-weights]
"""

import argparse
import inspect
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from .pipelines.modular_mg import MGBlocks
from .shipping import shippable_source


WEIGHTS = ("*.safetensors", "*.bin")


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _read_index(source: Path, target: Path) -> dict[str, Any]:
    """The index of the pipeline in `source`, if it can be exported to `target`."""
    if not (source / "model_index.json").is_file():
        raise ValueError(
            f"{str(source)!r} holds no saved pipeline (no model_index.json). Give a folder that `save_pretrained` or "
            f"`mg_diffusion.export` wrote."
        )
    index = json.loads((source / "model_index.json").read_text(encoding="utf-8"))
    if "tokenizer_2" in index:
        raise ValueError(f"{str(source)!r} is of SDXL; the modular blocks are those of Stable Diffusion 1 and 2.")
    if (target / "model_index.json").exists():
        raise ValueError(
            f"{str(target)!r} holds a saved pipeline (model_index.json), beside which diffusers cannot load modular "
            f"components. Give another folder."
        )
    return index


def _export_component(source: Path, target: Path, library: str, kind: str, weights: bool) -> bool:
    """Copy the folder of one component; whether its class comes with it, as remote code."""
    shutil.copytree(
        source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", *(() if weights else WEIGHTS))
    )
    if library in ("diffusers", "transformers"):
        return False
    if not (source / f"{library}.py").is_file():
        raise ValueError(f"{str(source)!r} lacks {library}.py, the code of {kind}. Save the pipeline again.")
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    _write(target / "config.json", {**config, "auto_map": {"AutoModel": f"{library}.{kind}"}})
    return True


def export_modular(source: str | Path, target: str | Path, repo_id: str | None = None, weights: bool = True) -> None:
    """Write a saved pipeline's components, the blocks, and the index that `ModularPipeline.from_pretrained` reads.

    Components whose class is neither of diffusers nor of transformers are loaded as remote code. diffusers runs such
    code only where it lies in the repository of the blocks, and not beside a `model_index.json`; therefore this is a
    repository of its own, with the components in it. Other files in `target`, such as a card, stay.

    Args:
        source: a folder that `MGPipeline.save_pretrained` or `mg_diffusion.export` wrote.
        target: a folder.
        repo_id: what the repository will be called on the Hub; a folder on disk needs none.
        weights: whether to copy weights, too. Without them, components come from elsewhere, by `update_components`.

    Raises:
        ValueError: if `source` holds no pipeline, or one that lacks the code of a component, or `target` holds one.
    """
    source, target = Path(source), Path(target)
    index = _read_index(source, target)
    blocks = MGBlocks()
    specs = [spec for spec in blocks.expected_components if spec.default_creation_method == "from_pretrained"]
    modular: dict[str, Any] = {
        "_blocks_class_name": type(blocks).__name__,
        "_class_name": "ModularPipeline",
        "_diffusers_version": index["_diffusers_version"],
    }
    target.mkdir(parents=True, exist_ok=True)
    for name in (spec.name for spec in specs):
        library, kind = index.get(name, (None, None))
        if library is None:  # optional, and absent
            continue
        is_custom = _export_component(source / name, target / name, library, kind, weights)
        hint = [None, None] if is_custom else [library, kind]
        place = {"pretrained_model_name_or_path": repo_id, "subfolder": name, "variant": None, "revision": None}
        modular[name] = [None, None, {"type_hint": hint, **place}]
    _write(target / "modular_model_index.json", modular)
    blocks.save_pretrained(target)
    code = Path(inspect.getsourcefile(type(blocks))).name
    (target / code).write_text(shippable_source(type(blocks)), encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--repo-id", metavar="OWNER/NAME", help="what the repository will be called on the Hub")
    parser.add_argument("--without-weights", action="store_true", help="write the small files only")
    args = parser.parse_args(arguments)
    try:
        export_modular(args.source, args.target, args.repo_id, not args.without_weights)
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
