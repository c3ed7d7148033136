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
        gives: what comes back; a key of the fixture `expected`.
        verdict: "yes", or part of a message in quotes.
    """

    id: str
    script: str
    place: str
    is_blocked: bool
    gives: str
    verdict: str = "yes"


def introduction(page: str) -> str:
    """The page's block of code."""
    return re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]


def rows(page: str) -> list[dict[str, str]]:
    """Rows of the page's tables of ways to load, by column."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        lines = [[cell.strip() for cell in line.strip("| \n").split(" | ")] for line in block.splitlines()]
        found += [dict(zip(lines[0], line, strict=True)) for line in lines[2:] if lines[0][0] == "way"]
    return found


def page_cells(page: str) -> list[Cell]:
    return [
        Cell(f"{row['way']}, {column} {place}", row["line"].strip("`"), place, is_blocked, row["gives"], row[column])
        for row in rows(page)
        for column in COLUMNS
        if column in row
        for place, is_blocked in COLUMNS[column]
        if row.get(place) != "-"
    ]


# What a line of the page does not show: several steps, and what is left as it was. The last expression is compared.
SAVE_LOAD_SAVE_LOAD = """
first = DiffusionPipeline.from_pretrained(haar, trust_remote_code=True)
first.save_pretrained(place)
second = DiffusionPipeline.from_pretrained(place, trust_remote_code=True)
third = type(second).from_pretrained(place, trust_remote_code=True)
assert torch.equal(sample(first), sample(third))
files = lambda folder: {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}
assert files(place) == files(haar)
second
"""
SAVE_LOAD_SAVE_LOAD_EDITING = """
first = DiffusionPipeline.from_pretrained(haar, custom_pipeline="pipeline_mg_inpaint", trust_remote_code=True)
first.save_pretrained(place)
second = DiffusionPipeline.from_pretrained(place, trust_remote_code=True)
assert torch.equal(edit(first), edit(second))
second
"""
HAND_ON = """
pipe = DiffusionPipeline.from_pretrained(haar, trust_remote_code=True)
editing = DiffusionPipeline.from_pretrained(haar, custom_pipeline="pipeline_mg_inpaint", trust_remote_code=True)
made = type(editing).from_pipe(pipe)
assert made.mg_adapter is pipe.mg_adapter
made
"""
KEEP_CLASS = """
DiffusionPipeline.from_pretrained(haar, custom_pipeline=f"{code}/pipeline_mg_inpaint.py", trust_remote_code=True)
"""
SHARE_WEIGHTS = """
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
"""
CAST_WHEN_TOLD = """
half = MGPipeline.from_pretrained(repo, dtype=torch.float16)
made = MGInpaintPipeline.from_pipe(half, dtype=torch.float32)
assert half.dtype == made.dtype == made.mg_adapter.dtype == torch.float32
MGPipeline.from_pretrained(repo)
"""
STOCK_CASTS = """
half = MGPipeline.from_pretrained(repo, dtype=torch.float16)
StableDiffusionPipeline.from_pipe(half, **no_checker)
assert half.unet.dtype == torch.float32
MGPipeline.from_pretrained(repo)
"""
PASS_HALF = """
half = {name: part.half() for name, part in parts.items()}
MGPipeline.from_pretrained(base, dtype=torch.float16, **half)
"""
TWO_CLASSES = """
remote = DiffusionPipeline.from_pretrained(haar, trust_remote_code=True)
ours = MGPipeline.from_pretrained(haar)
assert type(remote) is not type(ours) and torch.equal(sample(remote), sample(ours))
MGInpaintPipeline.from_pretrained(haar, trust_remote_code=True)
"""
UNKNOWN = 'MGInpaintPipeline.from_pipe(MGPipeline.from_pretrained(repo), color="red")'
CHECKS = [
    Cell(f"{id}, {'not ' if is_blocked else ''}installed", script, "folder", is_blocked, f"{gives} with our VAE")
    for id, script, gives in (
        ("save, load, save, load", SAVE_LOAD_SAVE_LOAD, "MGPipeline"),
        ("save, load, save, load, to edit", SAVE_LOAD_SAVE_LOAD_EDITING, "MGInpaintPipeline"),
        ("a pipeline of its own code is handed on", HAND_ON, "MGInpaintPipeline"),
        ("a repository keeps to the class that it names", KEEP_CLASS, "MGPipeline"),
    )
    for is_blocked in (False, True)
] + [
    Cell("from_pipe shares weights and casts nothing", SHARE_WEIGHTS, "folder", False, "MGPipeline in float16"),
    Cell("from_pipe casts when it is told to", CAST_WHEN_TOLD, "folder", False, "MGPipeline"),
    Cell("from_pipe of diffusers casts unless it is told", STOCK_CASTS, "folder", False, "MGPipeline"),
    Cell(
        "from_pipe refuses what it does not know", UNKNOWN, "folder", False, "-", "unexpected keyword argument 'color'"
    ),
    Cell("parts in half precision", PASS_HALF, "folder", False, "MGPipeline in float16"),
    Cell("installed and remote code in one process", TWO_CLASSES, "folder", False, "MGInpaintPipeline with our VAE"),
]

MATRIX = page_cells(PAGE.read_text(encoding="utf-8")) + CHECKS
