"""The table of docs/references.md, cell by cell: what it says works does something, what it says is refused is."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mg_diffusion.octaves import build_detail_unet

from .tiny import SIZE, picture, references, seeded


HALF = (0, 0, 0.5, 1)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "references.md"


def cells():
    lines = [
        line.strip("| \n").split("|") for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:1] == "|"
    ]
    table = [[cell.strip() for cell in line] for line in lines]
    columns = PAGE.read_text(encoding="utf-8").split("| | ")[1].split("\n")[0].strip("| ").split(" | ")
    for row in table[2:]:
        for column, cell in zip(columns, row[1:], strict=True):
            if cell:
                yield row[0], column, cell


def arguments(name, column, given):
    """Arguments of a call that uses what the column names, for one granularity whose reference is `given`."""
    fields = given if isinstance(given, dict) else {"image": given}
    mask = np.zeros((30, 44), np.uint8)
    mask[:, :20] = 255
    values = {
        "several references": {"reference_image": {name: [given, picture(8)]}},
        "mask inside": {"reference_image": {name: {**fields, "mask": mask}}},
        "region": {"reference_image": {name: {**fields, "region": HALF}}},
        "palette": {"reference_image": {name: {**fields, "image": ["#123456", "#fedcba"]}}},
        "granularity card": {"reference_image": {name: fields}},
        "schedule": {"granularity_schedule": {name: (0.0, 0.5)}},
        "guidance": {"granularity_guidance": {name: 1.0}},
        "negative": {"negative_reference_image": {name: picture(9)}},
        "feature guidance": {"feature_guidance_scale": {name: 1.0}},
        "attribution": {"return_attribution": True},
    }
    return values[column]


@pytest.fixture(scope="module")
def mg_detail():
    torch.manual_seed(0)
    unet = build_detail_unet((16, 32), sample_size=2 * SIZE).eval()
    torch.nn.init.normal_(unet.conv_out.weight, std=0.05)
    return unet


@pytest.mark.parametrize("octaves", [0, 2])
@pytest.mark.parametrize("row, column, cell", list(cells()), ids=lambda value: value[:24])
def test_the_table_is_true(make, make_inpaint, mg_detail, tmp_path, row, column, cell, octaves):
    name, _, how = row.partition(", ")
    is_edit = how == "from the surroundings of an edit"
    pipeline = (make_inpaint if is_edit else make)(is_inpainting=True)
    if octaves:
        pipeline.register_modules(mg_detail=mg_detail)
    side = SIZE if is_edit else SIZE << octaves  # edits are painted without octaves
    given = picture(7)
    if how == "from a granularity card" or column == "granularity card":
        pipeline.mg_encoder.save_card(tmp_path / "a.safetensors", name, given)
        given = str(tmp_path / "a.safetensors")
    if how == "in a region":
        given = {"image": given, "region": HALF}
    if how == "without an adapter":
        pipeline.mg_adapter = None
    options = {"num_inference_steps": 2, "output_type": "np"}
    if octaves and not is_edit:
        options |= {"num_detail_steps": 2, "height": side, "width": side}
    if is_edit:
        mask = np.zeros((SIZE, SIZE), np.uint8)
        mask[4:12, 4:12] = 255
        options |= {"image": picture(3).resize((SIZE, SIZE)), "mask_image": mask}
    others = {key: value for key, value in references().items() if key != name}
    plain = {"reference_image": others if is_edit else {**others, name: given}}
    asked = arguments(name, column, given)
    if "reference_image" in asked:
        asked["reference_image"] = {**others, **asked["reference_image"]}
    elif pipeline.mg_adapter is not None:
        asked = {**plain, **asked}
    elif column == "feature guidance":
        plain, asked = {}, {"reference_image": {name: given}, **asked}

    def call(**kwargs):
        made = pipeline("a", generator=seeded(0), **options, **kwargs)
        return made.images if made.attribution is None else made.attribution[name]["map"].numpy()

    if cell != "yes":
        with pytest.raises(ValueError) as refused:
            call(**asked)
        assert cell.strip('"') in str(refused.value)
        return
    made = call(**asked)
    assert np.isfinite(made).all() and made.any()
    if column == "attribution":
        return
    assert made.shape == (1, side, side, 3)
    without = call(reference_image=others) if column in ("palette", "granularity card") else call(**plain)
    assert not np.array_equal(made, without)


def test_every_row_and_column_is_there():
    found = list(cells())
    assert len({row for row, _, _ in found}) == 7 and len({column for _, column, _ in found}) == 10
    assert sum(cell != "yes" for _, _, cell in found) == 9
