"""How near a result is to each reference in color, texture and shape: what came through, and what leaked."""

from typing import Any

import numpy as np
import PIL.Image

from mg_diffusion.granularities import GRANULARITIES


def nearness(encoder: Any, image: PIL.Image.Image, references: dict[str, list[Any]]) -> dict[str, dict[str, float]]:
    """Distances by `MGEncoder.feature_distances`, {granularity of the reference: {attribute: distance}}; 0 is equal.

    Color: squared sliced Wasserstein distance in Lab; texture: the same of patches; shape: the share of the color
    variance of the result that the reference's regions do not explain. They are the encoder's own measures, not
    MG-Bench's.

    Args:
        image: RGB; references: lists of pictures or, for color, palettes, by granularity. Of a palette there is only
            its color.
    """
    import torch  # late: the page opens without it

    size = (image.height, image.width)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float().to(encoder.device) / 255
    found = {}
    for name, row in references.items():
        attributes = GRANULARITIES if all(isinstance(one, PIL.Image.Image) for one in row) else (name,)
        features = encoder.encode({attribute: row for attribute in attributes}, size)
        distances = encoder.feature_distances(pixels, encoder.guidance_targets(features, size))
        found[name] = {attribute: float(value[0]) for attribute, value in distances.items()}
    return found


def as_table(found: dict[str, dict[str, float]]) -> str:
    """In markdown; the nearest reference of each attribute is bold."""
    if not found:
        return "There is no reference to compare with: give pictures or a palette."
    nearest = {}
    for attribute in GRANULARITIES:
        known = {name: row[attribute] for name, row in found.items() if attribute in row}
        nearest[attribute] = min(known, key=known.get) if known else None
    lines = ["| distance in | " + " | ".join(GRANULARITIES) + " |", "|-|-|-|-|"]
    for name, row in found.items():
        cells = []
        for attribute in GRANULARITIES:
            value = row.get(attribute)  # two digits that say something, never an exponent
            text = "no picture" if value is None else f"{value:.0f}" if value >= 10 else f"{value:.2f}"
            cells.append(f"**{text}**" if nearest[attribute] == name and len(found) > 1 else text)
        lines.append(f"| to the {name} reference | " + " | ".join(cells) + " |")
    leaks = [f"{a} is nearest to the {n} reference" for a, n in nearest.items() if n not in (None, a) and a in found]
    told = "Leaks: " + "; ".join(leaks) + "." if leaks else "Each attribute is nearest to its own reference."
    return "\n".join([*lines, "", told if len(found) > 1 else "With more references there is something to leak."])
