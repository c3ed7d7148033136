"""Upload model cards with their weights, and the Space, to the Hub: python -m tools.upload OWNER [--dry-run]

OWNER/mg-bazaar and OWNER/mg-bazaar-modular are models, OWNER/mg-diffusion is the Space. Log in first (`hf auth login`).
"""

import argparse
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub

from demo.space import write_space
from mg_diffusion.export_modular import export_modular


ROOT = Path(__file__).resolve().parents[1]
CARDS = ROOT / "hub_cards"
IGNORED = ["**/__pycache__/**", "__pycache__/**", "*.pyc", ".*", "**/.*"]


@dataclass(frozen=True)
class Upload:
    """One repository of the Hub, and the folder that it will be a copy of."""

    repo_id: str
    kind: str  # "model" or "space"
    folder: Path

    @property
    def files(self) -> list[str]:
        paths = (path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())
        return sorted(huggingface_hub.utils.filter_repo_objects(paths, ignore_patterns=IGNORED))

    def __str__(self) -> str:
        size = sum((self.folder / name).stat().st_size for name in self.files) / 1e6
        return f"{self.kind} {self.repo_id}: {len(self.files)} files, {size:.1f} MB"


def gather(owner: str, folder: Path, cards: Path = CARDS) -> list[Upload]:
    """What goes up; what is generated is written below `folder`.

    Raises:
        ValueError: if the owner is no name, a card is missing, or a model lacks its weights.
    """
    try:
        huggingface_hub.utils.validate_repo_id(f"{owner}/mg-bazaar")
    except huggingface_hub.errors.HFValidationError as error:
        raise ValueError(f"OWNER must be the name of a user or organization of the Hub, got {owner!r}.") from error
    modular = folder / "mg-bazaar-modular"
    export_modular(cards / "mg-bazaar", modular, f"{owner}/mg-bazaar-modular")
    shutil.copy(cards / "mg-bazaar-modular" / "README.md", modular)
    uploads = [
        Upload(f"{owner}/mg-bazaar", "model", cards / "mg-bazaar"),
        Upload(f"{owner}/mg-bazaar-modular", "model", modular),
        Upload(f"{owner}/mg-diffusion", "space", write_space(folder / "space")),
    ]
    for upload in uploads:
        if "README.md" not in upload.files:
            raise ValueError(
                f"{upload.repo_id} must have a card, README.md, and has none. Write it before it goes up."
            )
        if upload.kind == "model" and not any(name.endswith(".safetensors") for name in upload.files):
            raise ValueError(f"{upload.repo_id} must have weights (.safetensors), and has none. Fetch them first.")
    return uploads


def push(upload: Upload) -> str:
    """Make the repository if it is not there, and one commit in it; its address."""
    hub, sdk = huggingface_hub.HfApi(), {"space_sdk": "gradio"} if upload.kind == "space" else {}
    hub.create_repo(upload.repo_id, repo_type=upload.kind, exist_ok=True, **sdk)
    commit = hub.upload_folder(
        repo_id=upload.repo_id,
        repo_type=upload.kind,
        folder_path=upload.folder,
        ignore_patterns=IGNORED,
        commit_message="Upload by tools.upload",
    )
    return commit.commit_url


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("owner", metavar="OWNER", help="user or organization of the Hub")
    parser.add_argument("--dry-run", action="store_true", help="say what would go up, without asking the Hub anything")
    parser.add_argument("--cards", type=Path, default=CARDS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as folder:
            uploads = gather(options.owner, Path(folder), options.cards)
            if not options.dry_run:
                huggingface_hub.HfApi().whoami()  # or the first upload would find it out
            for upload in uploads:
                print(upload, flush=True)
                if options.dry_run:
                    print("\n".join(f"  {name}" for name in upload.files))
                else:
                    print(f"  {push(upload)}", flush=True)
    except huggingface_hub.errors.LocalTokenNotFoundError:
        sys.exit("error: nobody is logged in. Run `hf auth login`, or set HF_TOKEN.")
    except (ValueError, OSError, huggingface_hub.errors.HTTPError) as error:  # answers of the Hub are the last two
        sys.exit(f"error: {error}")
    if options.dry_run:
        print("Nothing was uploaded." + (" HF_TOKEN is set." if os.environ.get("HF_TOKEN") else ""))


if __name__ == "__main__":
    main()
