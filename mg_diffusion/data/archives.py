"""Archives: downloaded once, checked, and read member by member. Nothing is unpacked to disk."""

import hashlib
import os
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Container, Iterator
from pathlib import Path

from tqdm import tqdm

from .sources import Source


TIMEOUT = 30  # seconds without an answer
CHUNK = 1 << 20  # bytes
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError)


def default_cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "mg-diffusion" / "data"


def file_digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_archive(source: Source, path: Path) -> None:
    """Raise a ValueError if `path` is not the archive of `source`, as far as that is known before reading it."""
    if source.sha256 is not None and (found := file_digest(path)) != source.sha256:
        raise ValueError(
            f"{path} is not the archive of {source.name} that is expected: its SHA-256 is {found}, that of {source.url} "
            f"is {source.sha256}. Delete it and download it again."
        )


def download(source: Source, path: Path) -> None:
    """Download to `path`, going on from `path` + ".part" if an earlier attempt left one.

    Raises:
        OSError: if the address cannot be reached, or the download breaks off; what came stays in the part.
    """
    part = path.with_name(path.name + ".part")
    there = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(source.url, headers={"Range": f"bytes={there}-"} if there else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        if answer.status != 206:  # the server sends all of it
            there = 0
        length = answer.headers.get("Content-Length")
        total = None if length is None else there + int(length)
        bar = tqdm(total=total, initial=there, unit="B", unit_scale=True, desc=f"downloading {source.name}")
        with open(part, "ab" if there else "wb") as file, bar:
            while block := answer.read(CHUNK):
                file.write(block)
                bar.update(len(block))
    if total is not None and part.stat().st_size != total:
        raise OSError(f"it broke off after {part.stat().st_size} of {total} bytes; run again to go on from there")
    os.replace(part, path)


def fetch(source: Source, cache_dir: Path) -> Path:
    """The archive of a source, from the cache or its address.

    Raises:
        ValueError: if it cannot be had, or is not the one that is expected.
    """
    path = cache_dir / source.file_name
    if not path.exists():
        cache_dir.mkdir(parents=True, exist_ok=True)
        try:
            download(source, path)
        except OSError as error:  # what urllib raises, too
            if isinstance(error, urllib.error.HTTPError) and error.code == 416:  # the part is no beginning of the file
                path.with_name(path.name + ".part").unlink()
            reason = getattr(error, "reason", None) or error
            raise ValueError(
                f"{source.name}: {source.url} cannot be downloaded: {reason}. Try again, or download it elsewhere and give "
                f"--source {source.name}=FILE."
            ) from error
    check_archive(source, path)
    return path


def members(path: Path, wanted: Container[str] = ()) -> Iterator[tuple[str, bytes | None]]:
    """The regular files of a .zip or .tgz in its order: the name without the outermost folder, and the bytes if `wanted`.

    Raises:
        ValueError: if it is neither, or damaged.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:
                for entry in file.infolist():
                    name = entry.filename.partition("/")[2]
                    if not entry.is_dir():
                        yield name, file.read(entry) if name in wanted else None
        else:
            with tarfile.open(path) as file:
                for entry in file:
                    name = entry.name.partition("/")[2]
                    if entry.isfile():
                        yield name, file.extractfile(entry).read() if name in wanted else None
    except DAMAGED as error:
        raise ValueError(f"{path} cannot be read as an archive: {error}. Delete it and download it again.") from error


def contents_digest(digests: dict[str, str]) -> str:
    """SHA-256 of the lines "SHA-256 of a member, two blanks, its name", sorted by name, as `sha256sum` writes them."""
    lines = (f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
