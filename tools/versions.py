"""The version and the changelog, as texts: what a release writes into them."""

import re
from pathlib import Path

from packaging.version import InvalidVersion, Version


VERSION = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)
PLACE = Path("mg_diffusion", "__init__.py")
SECTION = re.compile(r"^## \[(\d[^\]]*)\]", re.MULTILINE)
LINK = re.compile(r"^\[[^\]]+\]: .*(?:\n|\Z)", re.MULTILINE)


def version_of(text: str) -> str:
    """The version that the text of mg_diffusion/__init__.py holds."""
    found = VERSION.search(text)
    if found is None:
        raise ValueError(f'{PLACE} must have a line `__version__ = "..."`, and has none. Put it back.')
    return found[1]


def with_version(text: str, version: str) -> str:
    """The text of mg_diffusion/__init__.py with another version, which may not be an earlier one."""
    old = version_of(text)
    try:
        is_earlier = Version(version) < Version(old)
    except InvalidVersion as error:
        raise ValueError(f"A version is like 1.2.3 or 1.2.3rc1, got {version!r}.") from error
    if is_earlier:
        raise ValueError(f"{version} comes before {old}, the version that is there. Name a later one.")
    return VERSION.sub(f'__version__ = "{version}"', text)


def released(changelog: str, version: str, day: str, repository: str) -> str:
    """The changelog in which what was [Unreleased] is a version of that day, with links to the differences."""
    if version in SECTION.findall(changelog):
        raise ValueError(f"CHANGELOG.md has a section [{version}] already. Name a later version.")
    head, unreleased, rest = LINK.sub("", changelog).partition("## [Unreleased]\n")
    if not unreleased or not rest.partition("\n## ")[0].strip():
        raise ValueError("CHANGELOG.md must have a section [Unreleased] that says what changed, and has none.")
    text = f"{head}## [Unreleased]\n\n## [{version}] - {day}\n{rest.rstrip()}\n\n"
    return text + links(SECTION.findall(text), repository)


def links(versions: list[str], repository: str) -> str:
    """What the headings of a changelog link to. `versions`: from the latest to the first."""
    if not versions:
        return f"[Unreleased]: {repository}/commits/main\n"
    lines = [f"[Unreleased]: {repository}/compare/v{versions[0]}...HEAD"]
    for later, earlier in zip(versions, versions[1:], strict=False):
        lines.append(f"[{later}]: {repository}/compare/v{earlier}...v{later}")
    return "\n".join([*lines, f"[{versions[-1]}]: {repository}/releases/tag/v{versions[-1]}"]) + "\n"
