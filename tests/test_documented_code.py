"""Every block of Python in README and pages runs, or is checked against what it calls.

RUN: page by page, from top to bottom, in a folder of its own with pictures of the names that the code has; the model is a very
small one, or the shipped one where the page is about what only that has. CHECKED: what needs a download, a training or a server
is compiled, its imports are made, and the arguments of its calls are looked up in the real signatures.
"""

import ast
import importlib
import inspect
import re
import shutil

import PIL.Image
import pytest
from documented import Block, blocks
from tiny_repository import SIZE, draw


RUN = {
    "README.md": "tiny",
    "docs/five-minutes.md": "tiny",
    "docs/attribution.md": "tiny",
    "docs/detail.md": "shipped",
    "docs/edits.md": "shipped",
    "docs/feature-guidance.md": "tiny",
    "docs/few-steps.md": "shipped",
    "docs/for-artists.md": "tiny",
    "docs/for-researchers.md": "tiny",
    "docs/loading.md": "tiny",
    "docs/references.md": "tiny",
    "docs/with-your-checkpoint.md": "tiny",
    "docs/your-checkpoint.md": "tiny",
    "docs/with-your-pictures.md": "tiny",
}
CHECKED = {
    "docs/comfyui.md": "a ComfyUI; tests_comfyui runs nodes in one",
    "docs/bases.md": "Stable Diffusion from the Hub",
    "docs/compatibility.md": "a LoRA, an IP-Adapter and a ControlNet; tests/pipelines/test_compatibility.py walks its table",
    "docs/demo.md": "a server; tests/demo/test_app.py asks one",
    "docs/fine-tuning.md": "a run; tests/test_fine_tuning.py makes a small one",
    "docs/ip-adapter.md": "Stable Diffusion; tests/test_ip_adapter_export.py has a small one",
}
ELSEWHERE = {"docs/modular.md": "tests/test_modular_page.py"}
SIDES = (144, 96)  # of every picture
PICTURE = re.compile(r'"([\w/-]+\.(?:png|jpg))"')
# Where a page stands for a model or folder of the reader's.
PLACES = ("hub_cards/mg-bazaar", "my-model", "path/to/your/checkpoint", "FOLDER")

SMALLER = {
    "num_images_per_prompt=4": "num_images_per_prompt=2",
    "height=256, width=512": "height=64, width=128",
}  # the same call, sooner

BLOCKS = blocks("python")
BY_PAGE = {page: [block for block in BLOCKS if block.page == page] for page in {block.page for block in BLOCKS}}


def test_every_page_with_code_is_run_or_checked():
    assert set(BY_PAGE) == {*RUN, *CHECKED, *ELSEWHERE}


# -- run --------------------------------------------------------------------------------------------------------------
def mask_file(path, size=SIDES):
    """The left half is white."""
    image = PIL.Image.new("L", size)
    image.paste(255, (0, 0, size[0] // 2, size[1]))
    image.save(path)
    return image


def strokes_file(path, size=SIDES):
    layer = PIL.Image.new("RGBA", size)
    layer.paste((20, 60, 200, 255), (10, 10, 20, 16))
    layer.save(path)


def lay_out(page: str, folder, place) -> None:
    """Models and pictures under the names that the page has for them."""
    for name in PLACES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(place)
    names = sorted({name for block in BY_PAGE[page] for name in PICTURE.findall(block.code)})
    for seed, name in enumerate(names):
        draw(folder / name, seed, *SIDES)
        if name.rpartition("/")[2] in ("mask.png", "sleeve.png"):
            mask_file(folder / name)
        elif name == "strokes.png":
            strokes_file(folder / name)


def given(page: str, folder, place) -> dict:
    """What the text of a page says that its code has."""
    from mg_diffusion import MGAdapter, MGEncoder, MGPipeline

    draw(folder / "a-photo.png", 7, *SIDES)
    photo, mask = PIL.Image.open(folder / "a-photo.png"), mask_file(folder / "a-mask.png")
    photo.paste("#e1552d", (8, 8, 24, 24))  # the suit that docs/edits.md recolors
    cut_out = photo.convert("RGBA")
    cut_out.putalpha(mask)
    references = {
        name: str(draw(folder / f"given-{name}.png", seed)) for seed, name in enumerate("color texture shape".split())
    }
    names = {"photo": photo, "mask": mask, "cut_out": cut_out, "sleeve": mask, "soft_mask": mask}
    names |= {"references": references, "repo": str(place), "alone": str(folder / "alone")}
    if page == "docs/loading.md":  # each part saved by itself
        for kind, part in ((MGEncoder, "mg_encoder"), (MGAdapter, "mg_adapter")):
            kind.from_pretrained(place, subfolder=part).save_pretrained(folder / "alone" / part)
    if page not in ("README.md", "docs/five-minutes.md", "docs/loading.md"):
        names |= {"MGPipeline": MGPipeline, "PIL": PIL, "Image": PIL.Image}
        names["pipe"] = MGPipeline.from_pretrained(place)
        names["pipe"].set_progress_bar_config(disable=True)
    return names


@pytest.mark.parametrize("page", RUN)
def test_code_runs(page, model, repository, tmp_path, monkeypatch, recwarn):
    monkeypatch.chdir(tmp_path)
    place = model if RUN[page] == "tiny" else repository / "hub_cards" / "mg-bazaar"
    lay_out(page, tmp_path, place)
    names = given(page, tmp_path, place)
    made = {}
    for block in BY_PAGE[page]:
        code = block.code
        for large, small in SMALLER.items():
            code = code.replace(large, small)
        exec(compile("\n" * (block.line - 1) + code, str(block), "exec"), names)  # errors name the line of the page
        made |= {name: value for name, value in names.items() if isinstance(value, PIL.Image.Image)}
    if RUN[page] == "tiny" and "image" in made:
        assert SIZE in made["image"].size
    shutil.rmtree(tmp_path, ignore_errors=True)


# -- checked ----------------------------------------------------------------------------------------------------------
def signature_of(call: ast.Call, names: dict) -> inspect.Signature | None:
    """Of a call of ours; `None` for one of others."""
    from mg_diffusion import MGPipeline, MGXLPipeline

    called = ast.unparse(call.func)
    if called == "pipe":  # a page may have several
        kind = MGXLPipeline if "MGXLPipeline" in names else MGPipeline
        return inspect.signature(kind.__call__)
    function = names.get(called)
    return inspect.signature(function) if getattr(function, "__module__", "").startswith("mg_diffusion") else None


def imports_of(tree: ast.AST) -> dict:
    """What a block imports, by name."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            found |= {alias.name: getattr(module, alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name: importlib.import_module(alias.name) for alias in node.names}
    return found


def check_arguments(block: Block) -> int:
    """How many imports and calls of ours were looked up."""
    tree = ast.parse(block.code)
    names = imports_of(tree)
    count = len(names)
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        given = {keyword.arg for keyword in call.keywords if keyword.arg}
        if ast.unparse(call.func) == "client.predict":
            check_endpoint(call, given - {"api_name"})
            count += 1
        elif (signature := signature_of(call, names)) is not None:
            # Stock pipelines take other arguments than ours.
            is_stock = "StableDiffusionPipeline" in names and ast.unparse(call.func) == "pipe"
            takes_any = any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values())
            assert is_stock or takes_any or given <= set(signature.parameters), (str(block), given)
            count += 1
    return count


def check_endpoint(call: ast.Call, given: set[str]) -> None:
    from demo.page.described import INPUTS

    assert given <= set(INPUTS), given - set(INPUTS)


@pytest.mark.parametrize("page", CHECKED)
def test_code_calls_what_there_is(page):
    assert sum(check_arguments(block) for block in BY_PAGE[page])
