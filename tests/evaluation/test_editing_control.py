import json

import numpy as np
import pytest

from mg_diffusion.evaluation.control import write_json
from mg_diffusion.evaluation.editing import in_8_bits
from mg_diffusion.evaluation.editing_control import measure_hole_control, random_edits
from mg_diffusion.granularities import GRANULARITIES
from mg_diffusion.training.renderer import render


POOL = 24
N_CANDIDATES = 12
EDITS = random_edits(16, POOL, seed=0)


@pytest.fixture(scope="module")
def pool():
    return [render(place, place, place) for place in range(POOL)]


def draw(triple):
    return render(**triple, phase=1)


def measure(edit, pool, edits=EDITS, **options) -> dict:
    return measure_hole_control(edit, pool, edits, n_candidates=N_CANDIDATES, n_boot=50, **options)


def filling(pool, choose):
    """An edit that knows the factors of its references, and fills the hole with what `choose` draws from them."""
    places = {id(picture): place for place, picture in enumerate(pool)}

    def edit(images, masks, references, seeds):
        names, rows = list(references), zip(*references.values(), strict=True)
        made = [choose({name: places[id(picture)] for name, picture in zip(names, row, strict=True)}) for row in rows]
        return [np.where(mask[..., None], new, old) for mask, new, old in zip(masks, made, images, strict=True)]

    return edit


@pytest.fixture(scope="module")
def oracle(pool):
    return measure(filling(pool, draw), pool, oracle=draw)


def top1(found: dict) -> list[float]:
    return [found["top1"][name]["mean"] for name in GRANULARITIES]


def test_oracle_agrees_with_its_references_in_all_three(oracle, tmp_path):
    color, texture, shape = top1(oracle["method"])
    assert color > 0.75 and texture > 0.45 and shape > 0.9
    assert oracle["method"]["joint"]["mean"] > 0.4
    assert min(figure["mean"] for figure in oracle["method"]["pairwise"].values()) > 0.85
    assert oracle["exactness"] == {"pixels": 0, "share": 0}
    write_json(tmp_path / "hole.json", oracle)
    assert json.loads((tmp_path / "hole.json").read_text()) == oracle


def test_only_the_hole_is_judged(oracle):
    """The reference line draws the whole picture, the method only the hole."""
    assert oracle["method"] == oracle["reference_lines"]["oracle"]


def test_a_hole_left_as_it_was_agrees_with_no_reference(oracle):
    found = oracle["reference_lines"]["source"]
    assert max(top1(found)) < 0.2
    assert found["joint"]["mean"] == 0


@pytest.mark.parametrize("copied", GRANULARITIES)
def test_a_pasted_reference_wins_what_it_lends_and_leaks_the_rest(oracle, copied):
    found = oracle["reference_lines"][f"copy_{copied}"]
    for name in GRANULARITIES:
        if name == copied:
            assert found["top1"][name]["mean"] > 0.6
        else:
            assert found["top1"][name]["mean"] < 0.2
            assert found["leak"][name]["mean"] > 0.6
    assert found["joint"]["mean"] == 0


def test_gray_hole_scores_little(pool):
    def gray(images, masks, references, seeds):
        return [np.where(mask[..., None], 0.5, image) for image, mask in zip(images, masks, strict=True)]

    found = measure(gray, pool)["method"]
    assert found["top1"]["shape"]["mean"] == pytest.approx(1 / N_CANDIDATES)  # equally far from all
    assert found["joint"]["mean"] < 0.05


def test_one_granularity_alone(pool):
    def recolor(triple):
        assert set(triple) == {"color"}
        return render(triple["color"], 0, 0)

    result = measure(filling(pool, recolor), pool, granularities=("color",))
    assert result["method"]["top1"]["color"]["mean"] > 0.6
    for found in (result["method"], result["chance"], *result["reference_lines"].values()):
        assert set(found) == {"pairwise", "top1", "mrr", "leak"}
        assert all(set(row) == {"color"} for row in found.values())
    assert result["settings"]["granularities"] == ["color"]


def test_edit_is_called_with_the_hole_and_the_references_in_batches(pool):
    calls = []

    def edit(images, masks, references, seeds):
        assert all(mask[12:52, 12:52].all() and mask.sum() == 40**2 for mask in masks)
        borrowed = [[id(picture) for picture in references[name]] for name in GRANULARITIES]
        calls.extend(zip([image.tobytes() for image in images], *borrowed, seeds, strict=True))
        return images

    result = measure(edit, pool, EDITS[:3], batch_size=2, seed=5)
    assert calls == [
        (in_8_bits(pool[job["source"]]).tobytes(), *(id(pool[job[name]]) for name in GRANULARITIES), 5 + index)
        for index, job in enumerate(EDITS[:3])
    ]
    assert result["settings"]["hole"] == [40, 40]
    assert result["method"] == result["reference_lines"]["source"]


def test_what_changes_outside_the_hole_is_counted(pool):
    def edit(images, masks, references, seeds):
        images[1][0, 0] = 1 - images[1][0, 0]
        return images

    assert measure(edit, pool, EDITS[:3])["exactness"]["pixels"] == 1


def test_random_edits_are_reproducible_and_of_four_different_pictures():
    edits = random_edits(100, 6, seed=3)
    assert edits == random_edits(100, 6, seed=3) != random_edits(100, 6, seed=4)
    assert all(set(job) == {"source", *GRANULARITIES} and len(set(job.values())) == 4 for job in edits)
    with pytest.raises(ValueError, match="a pool of at least 4 pictures, got 3"):
        random_edits(1, 3, seed=0)


@pytest.mark.parametrize(
    ("edits", "options", "message"),
    [
        ([], {}, "at least one: got 0"),
        (EDITS, {"granularities": ()}, r"some of the granularities .* got \(\)"),
        (EDITS, {"granularities": ("color", "color")}, "each once"),
        (EDITS, {"granularities": ("light",)}, "some of the granularities"),
        ([{"color": 0, "texture": 1, "shape": 2}], {}, "an edit with the keys"),
        ([{"source": 0, "color": 0, "texture": 1, "shape": 2}], {}, "none of its references"),
        ([{"source": POOL, "color": 0, "texture": 1, "shape": 2}], {}, f"in a pool of {POOL} pictures"),
        ([{"source": 3, "color": 0, "texture": 1, "shape": POOL}], {}, f"in a pool of {POOL} pictures"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_edited(pool, edits, options, message):
    with pytest.raises(ValueError, match=message):
        measure(lambda *_: pytest.fail("edited"), pool, edits, **options)


def test_pools_of_several_sizes_are_refused(pool):
    with pytest.raises(ValueError, match=r"pictures of one size, got \[\(48, 64, 3\), \(64, 64, 3\)\]"):
        measure(lambda *_: pytest.fail("edited"), [*pool, pool[0][:48]])
