"""`mg-diffusion data bazaar128`: rebuilds the training set of the embedded model from its public sources."""

import dataclasses
import hashlib
import io
import json
import os
import shutil
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import PIL.Image
from tqdm import tqdm

from mg_diffusion.pictures import centered_square, read_upright

from .archives import check_archive, contents_digest, default_cache, fetch, members
from .selections import SELECTIONS, TEXTS, Entry, left_out
from .sources import SOURCES, Source


QUALITY = 85  # of WebP
USUAL = 128  # pixels; up to here sources that are smaller are enlarged
MARGIN = 1.25  # beyond, a source has so many times the resolution: texture is what a larger cut is for


def square(data: bytes, resolution: int) -> PIL.Image.Image | None:
    """The centered square of an encoded picture, (resolution, resolution) in RGB; `None` of one too small for that."""
    image = read_upright(io.BytesIO(data)).convert("RGB")
    if resolution > USUAL and min(image.size) < MARGIN * resolution:
        return None
    return centered_square(image, resolution, PIL.Image.Resampling.LANCZOS)


def read_index(path: Path) -> tuple[list[str], dict[str, bytes]]:
    """The names in an archive, and those of its members that selections or licences need."""
    found = list(members(path, TEXTS))
    return [name for name, _ in found], {name: data for name, data in found if data is not None}


def write_pictures(
    source: Source, path: Path, chosen: dict[str, Entry], omitted: frozenset[str], folder: Path, resolution: int
) -> tuple[dict[str, str], set[str]]:
    """Write the chosen pictures that are not left out; returns the SHA-256 of all chosen members, and which were too small.

    Raises:
        ValueError: for a picture that cannot be read.
    """
    digests, small = {}, set()
    with tqdm(total=len(chosen), desc=f"cutting {source.name}", mininterval=5) as bar:
        for name, data in members(path, chosen):
            if data is None:
                continue
            entry = chosen[name]
            digests[name] = hashlib.sha256(data).hexdigest()
            bar.update()
            if entry.file_name.removesuffix(".webp") in omitted:
                continue
            try:
                picture = square(data, resolution)
            except Exception as error:  # decoders of damaged files raise errors of any type
                raise ValueError(f"{name} in {path} cannot be read as a picture: {error}.") from error
            if picture is None:
                small.add(name)
                continue
            target = folder / entry.split / entry.file_name
            target.parent.mkdir(parents=True, exist_ok=True)
            picture.save(target, quality=QUALITY)
    return digests, small


def add_source(source: Source, path: Path, folder: Path, resolution: int) -> list[Entry]:
    """Write the pictures of a source, its licence, and return its entries in the order of the metadata.

    Raises:
        ValueError: if the archive does not hold what is expected.
    """
    names, raw = read_index(path)
    texts = {name: text.decode("utf-8", errors="replace") for name, text in raw.items()}
    chosen = SELECTIONS[source.name](source, names, texts)
    if len(chosen) != source.pictures:
        raise ValueError(
            f"The archive of {source.name} holds {len(chosen)} pictures of the classes that are used, expected are "
            f"{source.pictures}. {path} is not what {source.url} holds."
        )
    omitted = left_out()
    digests, small = write_pictures(source, path, chosen, omitted, folder, resolution)
    if source.contents_sha256 is not None and (found := contents_digest(digests)) != source.contents_sha256:
        raise ValueError(
            f"The pictures in {path} are not those that {source.name} had: the digest of their contents is {found}, "
            f"expected is {source.contents_sha256}. Download {source.url} again."
        )
    for name in ("LICENSE.txt", "LICENSE"):
        if name in raw:
            (folder / f"LICENSE.{source.name}.txt").write_bytes(raw[name])
    kept = (entry for name, entry in chosen.items() if name not in small)
    return [entry for entry in kept if entry.file_name.removesuffix(".webp") not in omitted]


def write_metadata(entries: Sequence[Entry], folder: Path) -> dict[str, int]:
    """One `metadata.jsonl` in each split; returns how many pictures each has."""
    counts = {}
    for split in ("train", "val"):
        rows = [dataclasses.asdict(entry) for entry in entries if entry.split == split]
        lines = (json.dumps({k: v for k, v in row.items() if k != "split"}, ensure_ascii=False) for row in rows)
        (folder / split).mkdir(exist_ok=True)
        (folder / split / "metadata.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        counts[split] = len(rows)
    return counts


def read_me(sources: Sequence[Source], counts: dict[str, int], resolution: int) -> str:
    rows = "\n".join(
        f"| `{one.name}_*` | [{one.home}]({one.home}) | [{one.license}]({one.license_url}) |" for one in sources
    )
    template = (files(__package__) / "read_me.md").read_text(encoding="utf-8")
    return template.format(resolution=resolution, rows=rows, **counts)


def locate(sources: Sequence[Source], given: Sequence[tuple[str, str]], cache_dir: Path) -> dict[str, Path]:
    """The archive of each source: the one given by hand, or the downloaded one.

    Raises:
        ValueError: for a name that is no source or comes twice, for a file that is missing or another one, and if a
            download fails.
    """
    names = [source.name for source in sources]
    by_hand: dict[str, Path] = {}
    for name, file in given:
        if name not in names:
            raise ValueError(f"--source {name}={file}: there is no source {name!r}; known are {', '.join(names)}.")
        if name in by_hand:
            raise ValueError(f"--source {name} is given twice. Leave one out.")
        if not Path(file).is_file():
            raise ValueError(f"--source {name}={file}: there is no such file.")
        by_hand[name] = Path(file)
    for source in sources:
        if source.name in by_hand:  # before anything is downloaded
            check_archive(source, by_hand[source.name])
    return {one.name: by_hand.get(one.name) or fetch(one, cache_dir) for one in sources}


def build(
    output: str | Path,
    *,
    resolution: int = 128,
    cache_dir: str | Path | None = None,
    given: Sequence[tuple[str, str]] = (),
    sources: Sequence[Source] = SOURCES,
) -> dict[str, Any]:
    """Download what is missing and write the training set; `output` appears when it is complete.

    Args:
        resolution: side of the pictures in pixels; above 128 only sources of 1.25 times it and more are taken.
        given: name and file of archives downloaded by hand.
        sources: addresses and checksums, for a mirror.

    Returns:
        The number of pictures of "train" and "val".

    Raises:
        ValueError: if `output` holds something, an archive cannot be had, or does not hold what is expected, and where no
            source is large enough.
    """
    folder = Path(output)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there already. Give a folder that does not exist or is empty.")
    archives = locate(sources, given, default_cache() if cache_dir is None else Path(cache_dir))
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        entries = [entry for one in sources for entry in add_source(one, archives[one.name], unfinished, resolution)]
        if not entries:
            raise ValueError(
                f"No source has the {MARGIN * resolution:.0f} pixels that pictures of {resolution} are cut of."
            )
        counts = write_metadata(entries, unfinished)
        (unfinished / "README.md").write_text(read_me(sources, counts, resolution), encoding="utf-8")
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    if folder.exists():
        folder.rmdir()
    os.replace(unfinished, folder)
    return counts
