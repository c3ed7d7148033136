"""`mg-diffusion data check`: what is to be known of a folder of pictures before a run."""

import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mg_diffusion.decoding import MAX_SKIPPED_SHARE
from mg_diffusion.metadata import CAPTIONS, caption_column, caption_of

from .faces import FaceDetector, find_detector
from .fingerprints import near_pairs
from .folders import Split, read_folder
from .pictures import Picture, look, why_skipped


CAPTION_TOKENS = 77  # of CLIP's text encoders, with the marks of start and end
LICENSE_COLUMNS = ("license", "licence", "rights", "source")  # the first that says something
# CLIP splits a caption into English endings, words, single digits and runs of signs before it looks for tokens.
PIECE = re.compile(r"'(?:s|t|re|ve|m|ll|d)|[^\W\d_]+|\d|(?:[^\s\w]|_)+", re.IGNORECASE)


def caption_tokens(text: str) -> int:
    """The least number of tokens of a caption: rare words take several."""
    return len(PIECE.findall(text)) + 2


def spread(values: Iterable[float]) -> list[float] | None:
    """Least, median and greatest; `None` of nothing."""
    values = list(values)
    return [min(values), statistics.median(values), max(values)] if values else None


def read_file(path: Path, detector: FaceDetector | None) -> Picture | str:
    """What is to be said of a picture, or why training skips the file."""
    reason = why_skipped(str(path))
    if reason is not None:
        return reason
    try:
        return look(str(path), detector)
    except Exception as error:  # as in `why_skipped`
        return f"damaged: {error}"


def read_files(files: Sequence[Path], detector: FaceDetector | None, name: str) -> list[Picture | str]:
    """What is to be said of each file. Holds a few kilobytes of each, never the pictures."""
    with ThreadPoolExecutor() as pool:  # decoders work without the interpreter's lock
        jobs = pool.map(lambda path: read_file(path, detector), files)
        return list(tqdm(jobs, total=len(files), desc=f"reading {name}", mininterval=5))


def captions(split: Split, used: list[Path], column: str | None) -> dict[str, Any]:
    """How many there are and how long they are; what is no text is a problem."""
    given, wrong = [], []
    for path in used:
        try:
            given.append(caption_of(split.rows.get(path, {}), column or CAPTIONS[0]).strip())
        except ValueError as error:
            given.append("")
            wrong.append(f"{split.short(path)}: {error}")
    if wrong:
        split.problems.append(f"{len(wrong)} captions of {split.name} are no text, and stop training: {wrong[0]}")
    lengths = [caption_tokens(text) for text in given if text]
    return {
        "column": column or CAPTIONS[0],
        "missing": sum(not text for text in given),
        "least_tokens": spread(lengths),
        "too_long": sum(length > CAPTION_TOKENS for length in lengths),
    }


def licenses(split: Split, used: list[Path]) -> dict[str, Any]:
    """How many pictures there are of each licence, and without one."""
    rows = [split.rows.get(path, {}) for path in used]
    said = [next((str(row[name]) for name in LICENSE_COLUMNS if row.get(name)), None) for row in rows]
    counts = Counter(one for one in said if one is not None)
    return {"counts": dict(counts.most_common()), "missing": said.count(None)}


def column_of(split: Split, wanted: str | None) -> str | None:
    """The column of captions as training finds it; a problem where it is not there, or there is none among several."""
    first = next(iter(split.rows.values()), {})
    if wanted is not None:
        if wanted.partition(".")[0] not in split.columns and wanted not in split.columns:
            split.problems.append(f"{split.name} has no column {wanted!r} (--caption-column)")
        return wanted
    found = caption_column(list(split.columns), first)
    known = {name for name in split.columns if name.endswith("file_name")} | {"label", *LICENSE_COLUMNS}
    others = [name for name in split.columns if name not in known]
    if found is None and others:
        split.problems.append(
            f"the metadata of {split.name} has no captions by name ({', '.join(CAPTIONS)}), but {others}: training reads "
            f"none unless one is named (--caption-column here, --caption_column there)"
        )
    return found


def describe(split: Split, read: list[Picture | str], column: str | None, has_detector: bool) -> dict[str, Any]:
    """The part of the report on one split, without duplicates."""
    pictures = {path: one for path, one in zip(split.files, read, strict=True) if isinstance(one, Picture)}
    skipped = {path: one for path, one in zip(split.files, read, strict=True) if isinstance(one, str)}
    used, found = list(pictures), list(pictures.values())
    return {
        "folder": str(split.folder),
        "pictures": len(pictures),
        "skipped": {split.short(path): reason for path, reason in skipped.items()},
        "other_files": split.others,
        "captions": captions(split, used, column),
        "shorter_side": spread(min(one.size) for one in found),
        "longer_side": spread(max(one.size) for one in found),
        "aspect": spread(round(one.size[0] / one.size[1], 3) for one in found),
        "modes": dict(Counter(one.mode for one in found).most_common()),
        "faces": [split.short(path) for path, one in pictures.items() if one.faces] if has_detector else None,
        "licenses": licenses(split, used),
    }


def duplicates(pictures: Iterable[tuple[str, str, Picture]]) -> dict[str, Any]:
    """Exact and near duplicates, within and across the splits.

    Args:
        pictures: with the names of their splits and files.

    Returns:
        "exact", a list of {"files", "splits"}, and "near", a list of {"files", "splits", "mirrored", "similarity"}; of
        files that are equal byte for byte the first stands for all among the near ones.
    """
    by_digest: dict[str, list[tuple[str, str, Picture]]] = defaultdict(list)
    for split, file, one in pictures:
        by_digest[one.sha256].append((split, file, one))
    groups = list(by_digest.values())
    exact = [
        {"files": [file for _, file, _ in group], "splits": sorted({split for split, _, _ in group})}
        for group in groups
        if len(group) > 1
    ]
    near = [
        {
            "files": [groups[index][0][1] for index in (pair.first, pair.second)],
            "splits": sorted({split for index in (pair.first, pair.second) for split, _, _ in groups[index]}),
            "mirrored": pair.is_mirrored,
            "similarity": pair.similarity,
        }
        for pair in near_pairs([group[0][2].fingerprint for group in groups])
    ]
    return {"exact": exact, "near": near}


def find_problems(splits: list[Split], report: dict[str, Any]) -> list[str]:
    """What would stop or spoil a run."""
    problems = [problem for split in splits for problem in split.problems]
    for name, part in report["splits"].items():
        if part["pictures"] == 0:
            problems.append(f"{name} has no picture that can be used")
        if part["skipped"]:
            problems.append(f"{name} has {len(part['skipped'])} files that training skips")
        unread = len(part["skipped"]) + part["other_files"]
        if part["pictures"] and unread / (unread + part["pictures"]) > MAX_SKIPPED_SHARE:
            problems.append(
                f"{unread} of {unread + part['pictures']} files of {name} are no pictures to train on: training stops "
                f"where they are more than {MAX_SKIPPED_SHARE:.0%} (--max_skipped_share); move the others elsewhere"
            )
    for kind, what in (("exact", "the same file"), ("near", "nearly the same picture")):
        across = sum(len(one["splits"]) > 1 for one in report["duplicates"][kind])
        if across:
            problems.append(f"{what} is in several splits {across} times: the validation loss would flatter the run")
    return problems


def check_folder(folder: str | Path, caption_column: str | None = None, look_for_faces: bool = True) -> dict[str, Any]:
    """Read every picture of an imagefolder once and report what matters for a run.

    Args:
        folder: pictures, or `train/` and `val/`, each with or without a `metadata.jsonl` (or `.csv`, `.parquet`).
        caption_column: of the metadata, which must be there; that which training finds if not given.

    Returns:
        A dict that JSON can hold: "splits" (by name), "duplicates", "detector" (its name, or why there is none), and
        "problems", what would stop or spoil a run; docs/data.md names all keys.

    Raises:
        ValueError: if there is no such folder.
    """
    splits = read_folder(folder)
    detector, said = find_detector() if look_for_faces else (None, "not asked for")
    report: dict[str, Any] = {"folder": str(folder), "detector": said, "splits": {}}
    pictures = []
    for split in splits:
        column = column_of(split, caption_column)
        read = read_files(split.files, detector, split.name)
        pairs = zip(split.files, read, strict=True)
        pictures += [(split.name, split.short(path), one) for path, one in pairs if isinstance(one, Picture)]
        report["splits"][split.name] = describe(split, read, column, detector is not None)
    report["duplicates"] = duplicates(pictures)
    report["problems"] = find_problems(splits, report)
    return report
