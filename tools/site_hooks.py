"""Hooks of mkdocs: links that leave `docs/` work on the site, too, as they do in a checkout and on GitHub.

Pictures from elsewhere in the repository are copied; other files are linked to where the repository lies.
"""

import posixpath
import re
import tomllib
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File


ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(!?\[[^\]]*\]\()(\.\./[^)#\s]+)(#[^)\s]*)?\)")
PICTURES = (".png", ".webp", ".jpg", ".svg")
COPIES = "repository"  # folder of the site
FETCHED = re.compile(r'(?:src=|<link[^>]+href=)["\']?(https?://[^"\'\s>]+)')


def repository() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["urls"]["Repository"]


def place_of(page: str, link: str) -> str:
    """The path from the root of the repository to what a page of docs/ links to."""
    return posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))


def on_files(files: Any, config: Any) -> Any:
    linked = {
        place_of(page.src_uri, link)
        for page in files.documentation_pages()
        for _, link, _ in LINK.findall(Path(page.abs_src_path).read_text(encoding="utf-8"))
        if link.endswith(PICTURES)
    }
    for place in sorted(linked):
        files.append(File.generated(config, f"{COPIES}/{place}", abs_src_path=str(ROOT / place)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    def rewritten(found: re.Match) -> str:
        start, link, anchor = found[1], found[2], found[3] or ""
        place = place_of(page.file.src_uri, link)
        if link.endswith(PICTURES):
            return f"{start}{posixpath.relpath(f'{COPIES}/{place}', posixpath.dirname(page.file.src_uri) or '.')})"
        kind = "tree" if (ROOT / place).is_dir() else "blob"
        return f"{start}{repository()}/{kind}/main/{place}{anchor})"

    return LINK.sub(rewritten, markdown)


def on_post_build(config: Any) -> None:
    """No page may load fonts, scripts or pictures from elsewhere."""
    for page in Path(config.site_dir).rglob("*.html"):
        if fetched := FETCHED.findall(page.read_text(encoding="utf-8")):
            raise PluginError(f"{page.name} loads {fetched[0]} from elsewhere. Put it into docs/.")
