"""Where the pictures of bazaar128 come from: all addresses, licences and checksums stand in sources.toml."""

import tomllib
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True)
class Source:
    """An archive.

    Args:
        sha256: of the archive, where its bytes are fixed.
        contents_sha256: of the members that are used (`archives.contents_digest`), where the archive is packed afresh for
            each download.
        pictures: how many there are of the classes that are used, those that are left out included.
    """

    name: str
    url: str
    file_name: str
    pictures: int
    license: str
    license_url: str
    home: str
    author: str | None = None
    sha256: str | None = None
    contents_sha256: str | None = None


ARCHIVES = tomllib.loads((files(__package__) / "sources.toml").read_text(encoding="utf-8"))
SOURCES = tuple(Source(**fields) for fields in ARCHIVES["source"])
