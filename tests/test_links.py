"""Links within the repository lead somewhere: files, and headings in them, from README, pages and the other documents."""

import re
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in (".", "docs", "demo", "benchmarks", "hub_cards/mg-bazaar", "hub_cards/mg-bazaar-modular")
    for path in (ROOT / folder).glob("*.md")
    if path.name != "CREDITS.md"  # generated: addresses of pictures elsewhere
)
CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
MENTION = re.compile(r"\b((?:docs|tests|benchmarks|tools|hub_cards)/[\w./-]+\.(?:md|py|json|yaml))\b")


def slugs(text: str) -> set[str]:
    """Anchors of the headings of a document, as GitHub and the site make them."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}


def test_there_are_documents():
    assert {"README.md", "CHANGELOG.md", "SECURITY.md", "docs/index.md"} <= set(DOCUMENTS)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    broken = []
    for link in LINK.findall(CODE.sub("", text)):
        if re.match(r"[a-z]+:", link):  # elsewhere
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / document).parent / name if name else ROOT / document
        if not target.exists():
            broken.append(link)
        elif anchor and target.suffix == ".md" and anchor not in slugs(target.read_text(encoding="utf-8")):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if name != "CHANGELOG.md"])
def test_files_that_are_named_are_there(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    text = re.sub(r"^```diff.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)  # what a reader would add
    assert not [name for name in MENTION.findall(text) if not (ROOT / name).exists()]


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r"[\w-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md")}
