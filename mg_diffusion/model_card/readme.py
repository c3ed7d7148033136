"""What else commands rewrite from the same files: figures of the project's README, and credits."""

import json
import re
from pathlib import Path
from typing import Any

from ..mg_bench.tables import dominance_of, leakage_table, retrieval_table


def readme_tables(bench: dict[str, Any]) -> str:
    """The figures of the project's README: retrieval on photographs, and leakage."""
    if "retrieval_photographic" not in bench:
        raise ValueError("bench.json lacks retrieval_photographic. Run mg-diffusion bench with that section.")
    photographic, model = bench["retrieval_photographic"], bench["settings"]["model"]
    count = photographic["settings"]["candidates"]
    blocks = [
        f"Three references from three different held-out photographs; how often the output is nearer to its own "
        f"reference than to another picture:\n\n{retrieval_table(photographic, model, 'pairwise')}",
        f"How often its own reference is the nearest of {count}:\n\n{retrieval_table(photographic, model)}",
    ]
    if "retrieval_synthetic" in bench:
        rendered = retrieval_table(bench["retrieval_synthetic"], model)
        blocks.append(f"The same for rendered pictures, where the true answer is known:\n\n{rendered}")
    for track in ("synthetic", "photographic"):
        if f"leakage_{track}" in bench:
            found = bench[f"leakage_{track}"]
            blocks.append(
                f"Leakage, {track}: one reference is swapped, the other two and the noise stay; how much each attribute "
                f"moves, as a share of what swapping all three moves (`seed`: only the noise changes). "
                f"{dominance_of(found)}\n\n{leakage_table(found['method'])}"
            )
    return "\n\n".join(blocks)


def replace_numbers(text: str, block: str) -> str:
    """Put `block` between `<!-- numbers -->` and `<!-- /numbers -->`.

    Raises:
        ValueError: if the text lacks the two comments.
    """
    pattern = re.compile(r"(<!-- numbers -->\n).*?(<!-- /numbers -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError("The README has no <!-- numbers --> ... <!-- /numbers --> block to fill.")
    return pattern.sub(lambda match: f"{match[1]}{block}\n{match[2]}", text)


def credits(data_dir: Path) -> str:
    """Authors of the training pictures that ask for credit, from the imagefolder's metadata."""
    rows = []
    for metadata in sorted(data_dir.glob("*/metadata.jsonl")):
        rows += [json.loads(line) for line in metadata.read_text(encoding="utf-8").splitlines() if line.strip()]
    try:
        named = sorted({(row["author"], row["source_url"], row["license"]) for row in rows if row.get("author")})
    except KeyError as error:
        raise ValueError(f"A picture of {data_dir} has an author, but no {error.args[0]!r}.") from error
    if not named:
        raise ValueError(f"{data_dir} has no metadata.jsonl with authors below it.")
    lines = [f"- {author}: {url} ({license})" for author, url, license in named]
    return "# Credits of the training pictures\n\n" + "\n".join(lines) + "\n"
