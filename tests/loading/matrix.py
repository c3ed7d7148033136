"""The matrix of loading: the lines of docs/loading.md at every place, and checks of what a line does not show."""

import re
from dataclasses import dataclass
from pathlib import Path


PAGE = Path(__file__).resolve().parents[2] / "docs" / "loading.md"
# Where a column of the page is tested: the place, and whether the package is blocked.
COLUMNS = {
    "folder": [("folder", False)],
    "Hub": [("Hub", False)],
    "offline": [("offline", False)],
    "no package": [("folder", True), ("Hub", True)],
    "installed": [("Hub", False)],
    "not installed": [("Hub", True)],
}


@dataclass(frozen=True)
class Cell:
    """One script in one fresh process.

    Args:
        id: what it checks.
        script: lines, and an expression for what is compared.
        place: where `base`, `repo` and `alone` are: in a "folder", on the "Hub", or there but "offline".
        is_blocked: whether the package cannot be imported.
        expected: "yes", or part of a message in quotes.
    """

    id: str
    script: str
    place: str
    is_blocked: bool
    expected: str = "yes"


def introduction(page: str) -> str:
    """The page's block of code."""
    return re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]


def rows(page: str) -> list[dict[str, str]]:
    """Rows of the page's tables, by column."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        lines = [[cell.strip() for cell in line.strip("| \n").split(" | ")] for line in block.splitlines()]
        found += [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]
    return found


def page_cells(page: str) -> list[Cell]:
    return [
        Cell(f"{row['way']}, {column} {place}", row["line"].strip("`"), place, is_blocked, row[column])
        for row in rows(page)
        for column in row.keys() & COLUMNS.keys()
        for place, is_blocked in COLUMNS[column]
        if row.get(place) != "-"
    ]


# What a line of the page does not show: several steps, and what is left as it was. The last expression is compared.
CHECKS = {
    "save, load, save, load": """
first = DiffusionPipeline.from_pretrained(haar, trust_remote_code=True)
first.save_pretrained(place)
second = DiffusionPipeline.from_pretrained(place, trust_remote_code=True)
third = type(second).from_pretrained(place, trust_remote_code=True)
assert torch.equal(sample(first), sample(third))
files = lambda folder: {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}
assert files(place) == files(haar)
second
""",
    "save, load, save, load, to edit": """
first = DiffusionPipeline.from_pretrained(haar, custom_pipeline="pipeline_mg_inpaint", trust_remote_code=True)
first.save_pretrained(place)
second = DiffusionPipeline.from_pretrained(place, trust_remote_code=True)
assert torch.equal(edit(first), edit(second))
second
""",
    "a pipeline of its own code is handed on": """
pipe = DiffusionPipeline.from_pretrained(haar, trust_remote_code=True)
editing = DiffusionPipeline.from_pretrained(haar, custom_pipeline="pipeline_mg_inpaint", trust_remote_code=True)
made = type(editing).from_pipe(pipe)
assert made.mg_adapter is pipe.mg_adapter
made
""",
}
PACKAGE_CHECKS = {
    "from_pipe shares weights and casts nothing": """
half = MGPipeline.from_pretrained(repo, dtype=torch.float16)
half.text_encoder.float()
weights = lambda pipe: {
    (name, key): (weight.data_ptr(), weight.dtype)
    for name, part in pipe.components.items()
    if isinstance(part, torch.nn.Module)
    for key, weight in part.state_dict().items()
}
before = weights(half)
editing = MGInpaintPipeline.from_pipe(half)
again = MGPipeline.from_pipe(editing)
assert weights(editing) == weights(again) == weights(half) == before
half.text_encoder.half()
before = weights(half)
stock = StableDiffusionPipeline.from_pipe(half, **no_checker, dtype=half.dtype)
assert weights(half) == before and weights(stock).items() <= before.items()
ours = MGPipeline.from_pipe(stock, mg_encoder=half.mg_encoder, mg_adapter=half.mg_adapter)
assert weights(ours) == before
ours
""",
    "from_pipe casts when told to": """
half = MGPipeline.from_pretrained(repo, dtype=torch.float16)
made = MGInpaintPipeline.from_pipe(half, dtype=torch.float32)
assert half.dtype == made.dtype == made.mg_adapter.dtype == torch.float32
MGPipeline.from_pretrained(repo)
""",
    "diffusers' own from_pipe casts to float32 unless told": """
half = MGPipeline.from_pretrained(repo, dtype=torch.float16)
StableDiffusionPipeline.from_pipe(half, **no_checker)
assert half.unet.dtype == torch.float32
MGPipeline.from_pretrained(repo)
""",
    "from_pipe knows its arguments": """
MGInpaintPipeline.from_pipe(MGPipeline.from_pretrained(repo), color="red")
""",
    "a part that is passed in keeps its type": """
half = {name: part.half() for name, part in parts.items()}
made = MGPipeline.from_pretrained(base, dtype=torch.float16, **half)
assert MGPipeline.from_pretrained(base, dtype=torch.float16, mg_encoder=None, mg_adapter=None).dtype == torch.float16
made
""",
    "the installed package and remote code in one process": """
remote = DiffusionPipeline.from_pretrained(haar, trust_remote_code=True)
ours = MGPipeline.from_pretrained(haar)
assert type(remote) is not type(ours) and torch.equal(sample(remote), sample(ours))
MGInpaintPipeline.from_pretrained(haar, trust_remote_code=True)
""",
}
EXPECTED = {"from_pipe knows its arguments": "\"unexpected keyword argument 'color'\""}


def checks() -> list[Cell]:
    both = [
        Cell(f"{name}, {blocked}", script, "folder", blocked == "blocked")
        for name, script in CHECKS.items()
        for blocked in ("installed", "blocked")
    ]
    return both + [
        Cell(name, script, "folder", False, EXPECTED.get(name, "yes")) for name, script in PACKAGE_CHECKS.items()
    ]


MATRIX = page_cells(PAGE.read_text(encoding="utf-8")) + checks()
