"""What the demo does, without its page: the shipped model at few steps."""

import io
import json
import time

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
from conftest import settings

from demo.edits import ACTIONS, Edit, combine_masks, mask_file, show_mask
from demo.inference import Axis, Studio
from demo.jobs import Stopped
from demo.restoring import restore
from demo.settings import start_guidance, start_steps
from demo.shelf import Shelf, StopSign
from mg_diffusion.granularities import GRANULARITIES
from mg_diffusion.recipe import KEY, read_recipe


def pixels(path) -> np.ndarray:
    with PIL.Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def disc(size=(256, 256)) -> PIL.Image.Image:
    mask = PIL.Image.new("L", size)
    PIL.ImageDraw.Draw(mask).ellipse((70, 120, 190, 220), fill=255)
    return mask


def scene(folder) -> PIL.Image.Image:
    with PIL.Image.open(folder / "scene.png") as image:
        return image.convert("RGB")


def restored(studio, path):
    return restore(path.read_bytes(), studio.shelf, studio.models.names)


# -- pictures ---------------------------------------------------------------------------------------------------------
def test_sixteen_pictures_are_made_of_as_many_seeds(studio, given):
    paths = studio.generate(given, settings(count=16, seed=5, size=64, steps=1))
    assert [read_recipe(path)["seed"] for path in paths] == list(range(5, 21))
    assert len({path.read_bytes() for path in paths}) == 16


def test_seeds_count_up_and_every_file_holds_its_recipe(studio, given):
    paths = studio.generate(given, settings(count=2, seed=5))
    recipes = [read_recipe(path) for path in paths]
    assert [recipe["seed"] for recipe in recipes] == [5, 6]
    assert recipes[0]["model"] == "mg-bazaar" and recipes[0]["references"]["color"] == [
        {"palette": ["#023047", "#219ebc:2", "#8ecae6"]}
    ]
    assert (pixels(paths[0]) != pixels(paths[1])).any()
    (alone,) = studio.generate(given, settings(seed=6))
    assert (pixels(paths[1]) == pixels(alone)).all()


@pytest.mark.parametrize("name", GRANULARITIES)
def test_each_slider_changes_the_picture_and_0_is_off(studio, given, name):
    def made(given, **scales):
        (path,) = studio.generate(given, settings(scales=dict.fromkeys(GRANULARITIES, 1.0) | scales))
        return pixels(path)

    off = made(given, **{name: 0.0})
    assert np.abs(made(given) - off).mean() > 1
    assert np.abs(off - made({key: slot for key, slot in given.items() if key != name})).max() <= 1


def test_references_are_composed_without_a_network_and_restored(studio, given, uploads_folder):
    path = studio.compose(given, settings(seed=3))
    again = studio.compose(given, settings(seed=3, steps=1))
    assert (pixels(path) == pixels(again)).all()
    recipe = read_recipe(path)
    assert recipe["command"] == "demo.compose" and recipe["seed"] == 3
    assert restored(studio, path).tab == "compose"
    off = settings(scales={**dict.fromkeys(GRANULARITIES, 1.0), "texture": 0.0}, seed=3)
    assert (pixels(studio.compose(given, off)) != pixels(path)).any()
    with pytest.raises(ValueError, match="There is nothing to compose"):
        studio.compose({}, settings())


def test_nothing_needs_to_be_given(studio):
    (path,) = studio.generate({}, settings(prompt="a red flower"))
    assert read_recipe(path)["references"] == {} and read_recipe(path)["prompt"] == "a red flower"


def test_several_references_of_a_granularity_are_averaged(studio, given, uploads_folder):
    both = {**given, "color": {**given["color"], "picture": str(uploads_folder / "scene.png")}}
    one, two = (studio.generate(each, settings())[0] for each in (given, both))
    assert (pixels(one) != pixels(two)).any()
    assert [set(entry) - {"sha256"} for entry in read_recipe(two)["references"]["color"]] == [{"picture"}, {"palette"}]


def test_progress_is_told_and_a_job_stops(studio, given):
    heard = []
    studio.generate(given, settings(count=2), report=lambda part, text: heard.append((round(part, 3), text)))
    assert [part for part, _ in heard] == [0.167, 0.333, 0.5, 0.667, 0.833, 1.0]
    assert heard[3][1] == "picture 2 of 2, step 1 of 3"
    heard.clear()
    with pytest.raises(Stopped):
        studio.generate(
            given, settings(steps=20), report=lambda *now: heard.append(now), is_stopped=lambda: len(heard) >= 2
        )
    assert len(heard) == 2
    assert len(studio.generate(given, settings())) == 1  # nothing stayed behind


@pytest.mark.parametrize("name", GRANULARITIES)
def test_each_granularity_shows_what_it_sees(studio, given, name):
    seen = studio.see(name, given[name])
    assert seen.size == (256, 256) and len(set(seen.convert("RGB").get_flattened_data())) >= 3
    assert studio.see(name, {}) is None
    if name == "color":
        assert set(seen.get_flattened_data()) == {(2, 48, 71), (33, 158, 188), (142, 202, 230)}


# -- edits ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("action", ACTIONS)
def test_every_edit_leaves_the_rest_bit_for_bit(studio, given, uploads_folder, action):
    photo = scene(uploads_folder)
    mask = None if ACTIONS[action][1] == "unused" else disc()
    edit = Edit(photo, mask, action, 4 if action == "repaint" else 0, (8, 0, 0, 16))
    before, path, differing = studio.edit(given, settings(), edit)
    made = pixels(path)
    assert differing == 0
    if action == "outpaint":
        assert made.shape == (272, 264, 3) and (made[:256, 8:] == np.asarray(photo)).all()
    elif action == "enlarge":
        assert made.shape == (512, 512, 3) and before.size == (512, 512)
    else:
        outside = np.asarray(edit.repainted) == 0
        assert (made[outside] == np.asarray(photo)[outside]).all() and before == photo
        assert (made != np.asarray(photo))[~outside].any()
    again = restored(studio, path)
    assert again.tab == "edit" and again.notes == []
    assert again.edit.photo == photo and again.edit.recipe(True) == edit.recipe(True)
    _, path, _ = studio.edit(again.given, again.settings, again.edit)
    assert (pixels(path) == made).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action": "repaint"}, "needs a mask"),
        ({"action": "remove"}, "needs a mask"),
        ({"action": "remove", "mask": PIL.Image.new("L", (256, 256))}, "all black"),
        ({"action": "explode"}, "must be one of"),
        ({"action": "enlarge", "photo": PIL.Image.new("RGB", (2000, 2000))}, "enlarges pictures of up to 3,000,000"),
        ({"action": "variation", "feather": 1000}, "soft edge must be a number from 0 to 64"),
        ({"action": "outpaint", "added": (0, 0, 0, 10**6)}, "added bottom must be a number from 0 to 512"),
    ],
)
def test_edits_that_cannot_work_are_refused(uploads_folder, changes, message):
    with pytest.raises(ValueError, match=message):
        Edit(**{"photo": scene(uploads_folder), **changes})


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ("recolor", "needs a color reference"),
        ("retexture", "needs a texture reference"),
        ("reshape", "needs a color or a texture reference"),
        ("outpaint", "at least 1 on some side"),
    ],
)
def test_edits_without_what_they_need_are_refused(studio, uploads_folder, action, message):
    with pytest.raises(ValueError, match=message):
        studio.edit({}, settings(), Edit(scene(uploads_folder), disc(), action))


def test_masks_are_put_together_and_shown(uploads_folder):
    photo, file = scene(uploads_folder), mask_file(disc())
    layer = PIL.Image.new("RGBA", (128, 128))
    PIL.ImageDraw.Draw(layer).rectangle((0, 0, 31, 31), fill="#ff00aa")
    stroke = io.BytesIO()
    layer.save(stroke, "PNG")
    mask = combine_masks(photo.size, file, [stroke.getvalue()])
    assert (np.asarray(mask)[:60, :60] == 255).all() and mask.getpixel((130, 170)) == 255
    assert mask.getpixel((250, 20)) == 0
    inverted = combine_masks(photo.size, file, [], invert=True)
    assert (np.asarray(inverted) == 255 - np.asarray(disc())).all()
    assert combine_masks(photo.size, None, []) is None
    shown, text = show_mask(photo, mask)
    assert "Hatched is repainted: 21% of the picture" in text and shown.size == (400, 400)
    assert "No mask yet" in show_mask(photo, None)[1]


# -- exploring --------------------------------------------------------------------------------------------------------
def test_a_sweep_gives_what_generating_gives(studio, given):
    sheet, made = studio.sweep(given, settings(steps=2), Axis("shape", 3, 1.5))
    assert [caption for _, caption in made] == ["shape 0", "shape 0.75", "shape 1.5"]
    scales = dict.fromkeys(GRANULARITIES, 1.0) | {"shape": 0.75}
    (alone,) = studio.generate(given, settings(steps=2, scales=scales))
    assert (pixels(made[1][0]) == pixels(alone)).all()
    assert restored(studio, made[1][0]).settings.scales == scales
    with pytest.raises(ValueError, match="sheet of several pictures"):
        restored(studio, sheet)


def test_a_grid_sweeps_two(studio, given):
    sheet, made = studio.sweep(given, settings(steps=1), Axis("color", 3, 1.0), Axis("texture", 2, 2.0))
    captions = [caption for _, caption in made]
    assert captions[0] == "color 0, texture 0" and captions[-1] == "color 1, texture 2" and len(captions) == 6
    with PIL.Image.open(sheet) as image:
        assert image.width > image.height


@pytest.mark.parametrize(
    ("given_names", "axes", "message"),
    [
        (GRANULARITIES, [("shape", 3, 1.0), ("shape", 3, 1.0)], "different granularities"),
        (("color",), [("shape", 3, 1.0)], "no shape reference"),
        (GRANULARITIES, [("mood", 3, 1.0)], "must be one of"),
        (GRANULARITIES, [("shape", 100, 1.0)], "from 2 to 7"),
        (GRANULARITIES, [("shape", 3, 1e9)], "from 0.1 to 2"),
    ],
)
def test_sweeps_that_cannot_work_are_refused(studio, given, given_names, axes, message):
    with pytest.raises(ValueError, match=message):
        studio.sweep({name: given[name] for name in given_names}, settings(), *(Axis(*axis) for axis in axes))


def test_a_picture_is_explained(studio, given, uploads_folder):
    pictures = {**given, "color": {"picture": str(uploads_folder / "scene.png")}}
    path, drawn, table = studio.explain(pictures, settings())
    (alone,) = studio.generate(pictures, settings())
    assert np.abs(pixels(path) - pixels(alone)).max() <= 1  # other batch sizes, other last bits
    with PIL.Image.open(drawn) as image:
        assert image.width == 3 * max(192, PIL.Image.open(path).width)
    assert table.count("to the") >= 3 and table.count("**") == 6
    assert "no picture" in studio.explain(given, settings(steps=1))[2]
    with pytest.raises(ValueError, match="no reference to explain"):
        studio.explain({}, settings())


# -- cards ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", GRANULARITIES)
def test_a_card_gives_what_its_picture_gives(studio, given, name):
    card = studio.make_card(name, given[name])
    made, again = (
        pixels(studio.generate(each, settings())[0]) for each in (given, {**given, name: {"card": str(card)}})
    )
    assert np.abs(made - again).max() <= 1
    assert studio.see(name, {"card": str(card)}) == studio.see(name, given[name])


def test_two_cards_are_mixed(studio, given, uploads_folder):
    first = str(studio.make_card("shape", given["shape"]))
    second = str(studio.make_card("shape", {"picture": str(uploads_folder / "star.png")}))
    made = [studio.mix("shape", (first, second), share, given, settings())[1] for share in (0.0, 0.5, 1.0)]
    assert len({pixels(path).tobytes() for path in made}) == 3
    again = restored(studio, made[1])
    assert again.tab == "cards" and again.mixed[:2] == ("shape", 0.5) and again.given["shape"] == {}
    _, path = studio.mix("shape", again.mixed[2:], again.mixed[1], again.given, again.settings)
    assert (pixels(path) == pixels(made[1])).all()
    with pytest.raises(ValueError, match="Two cards are needed"):
        studio.mix("shape", (first, None), 0.5, given, settings())
    with pytest.raises(ValueError, match="This is a shape card; it cannot serve as texture"):
        studio.mix("texture", (first, second), 0.5, given, settings())


def test_a_card_needs_one_picture(studio, given):
    with pytest.raises(ValueError, match="there are 0"):
        studio.make_card("shape", {})
    with pytest.raises(ValueError, match="must be one of"):
        studio.make_card("mood", given["shape"])


# -- restoring --------------------------------------------------------------------------------------------------------
def test_a_result_restores_what_made_it(studio, given, uploads_folder):
    card = str(studio.make_card("shape", given["shape"]))
    mixed = {**given, "shape": {"card": card, "picture": str(uploads_folder / "star.png")}}
    scales = {"color": 0.5, "texture": 1.25, "shape": 0.9}
    (path,) = studio.generate(mixed, settings(scales=scales, prompt="a leaf", seed=3))
    again = restored(studio, path)
    assert again.notes == [] and again.tab == "generate" and again.model == "mg-bazaar"
    assert again.settings == settings(scales=scales, prompt="a leaf", seed=3)
    (made,) = studio.generate(again.given, again.settings)
    assert (pixels(made) == pixels(path)).all()


def test_references_travel_only_if_wanted(studio, given):
    (path,) = studio.generate(given, settings(keep=False))
    assert "picture" not in read_recipe(path)["references"]["shape"][0]
    again = restored(studio, path)
    assert again.given["shape"] == {} and again.given["color"] == given["color"]
    assert again.notes == ["The texture reference must be given again.", "The shape reference must be given again."]


def test_a_picture_of_the_command_line_is_restored_as_far_as_it_goes(studio, uploads_folder, tmp_path):
    from mg_diffusion.cli import main

    output = tmp_path / "out.png"
    flags = ["--color", "#ff8800:3,#224466", "--shape", str(uploads_folder / "leaf.png"), "--scale", "shape=0.5"]
    assert main(["generate", *flags, "--seed", "7", "--steps", "2", "-o", str(output)]) == 0
    again = restored(studio, output)
    assert again.settings.seed == 7 and again.settings.steps == 2 and again.settings.scales["shape"] == 0.5
    assert again.given["color"] == {"palette": "#ff8800:3, #224466"}
    assert "The shape reference (leaf.png) must be given again." in again.notes


def with_recipe(path, recipe) -> bytes:
    text = PIL.PngImagePlugin.PngInfo()
    text.add_text(KEY, recipe if isinstance(recipe, str) else json.dumps(recipe))
    PIL.Image.new("RGB", (32, 32)).save(path, pnginfo=text)
    return path.read_bytes()


@pytest.mark.parametrize(
    "recipe",
    [
        "no json",
        "[" * 100_000,
        [],
        {"granularity_scale": "abc"},
        {"granularity_scale": {"color": 1e9}},
        {"granularity_scale": {"color": "1"}},
        {"seed": 10**30},
        {"seed": -1},
        {"num_inference_steps": 10**6},
        {"prompt": ["a"]},
        {"prompt": "a" * 10_000},
        {"references": {"color": 3}},
        {"references": {"color": [3]}},
        {"references": {"color": [{"palette": 3}]}},
        {"references": {"shape": [{"picture": "@@@"}]}},
        {"references": {"shape": [{"picture": "aGFsbG8="}]}},
        {"mixed": {"granularity": "mood"}},
        {"mixed": 3},
        {"edit": 3},
        {"edit": {"action": "remove", "feather": 0, "added": [0, 0, 0, 0], "size": [10**6, 10**6], "covered": None}},
        {"edit": {"action": "remove", "feather": 0, "added": [0], "size": [32, 32], "covered": None, "mask": None}},
        {"edit": {"action": "remove", "feather": 0, "added": 0, "size": [32, 32], "covered": {"box": "a"}}},
    ],
)
def test_hostile_recipes_are_refused_in_words(studio, tmp_path, recipe):
    content = with_recipe(tmp_path / "hostile.png", recipe)
    if recipe == {"references": {"color": [{"palette": 3}]}}:
        assert restore(content, studio.shelf, studio.models.names).given["color"] == {"palette": ""}
        return
    with pytest.raises(ValueError):
        restore(content, studio.shelf, studio.models.names)


def test_what_holds_no_recipe_is_told(studio, uploads_folder):
    with pytest.raises(ValueError, match="holds no recipe"):
        restored(studio, uploads_folder / "leaf.png")
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        restore(b"hello", studio.shelf, studio.models.names)


def test_results_hold_nothing_of_the_server_and_no_exif(studio, given, uploads_folder, tmp_path):
    photo = tmp_path / "photo.jpg"
    exif = PIL.Image.Exif()
    exif[0x010F] = "Secret Camera"
    scene(uploads_folder).save(photo, exif=exif)
    (path,) = studio.generate({**given, "shape": {"picture": str(photo)}}, settings())
    content = path.read_bytes()
    assert b"Secret Camera" not in content and str(tmp_path).encode() not in content
    assert str(studio.shelf.folder).encode() not in content


def test_a_model_that_is_not_configured_is_refused(studio, given):
    with pytest.raises(ValueError, match="There is no model of this name here; there are mg-bazaar"):
        studio.generate(given, settings(), model="/etc")


def test_models_switch_and_one_is_kept(model, given, monkeypatch):
    from demo.models import Models, configured

    monkeypatch.setenv("MG_MODEL", f"{model}, mg-bazaar")
    models = Models(configured())
    assert models.names == [model.name, "mg-bazaar"]
    studio = Studio(models)
    tiny, shipped = (pixels(studio.generate(given, settings(), model=name)[0]).shape for name in (None, "mg-bazaar"))
    assert tiny == (32, 32, 3) and shipped == (64, 64, 3)
    assert models.loaded.name == "mg-bazaar"
    studio.shelf.close()


def test_a_model_that_is_not_there_is_told(monkeypatch, given):
    from demo.models import Models, configured

    monkeypatch.setenv("MG_MODEL", "mg-bazaar, ./not/here")
    with pytest.raises(ValueError, match="MG_MODEL must name folders or Hub ids; there is no folder './not/here'"):
        configured()
    with pytest.raises(ValueError, match="The model nobody/nothing cannot be loaded. Whoever runs this page"):
        Models(["nobody/nothing"]).get()


def test_a_base_of_stable_diffusion_xl_is_shown_and_edited(tmp_path, uploads_folder):
    from demo.models import Models
    from mg_diffusion import MGXLPipeline
    from tests.pipelines.tiny_xl import tiny_components_xl

    (tmp_path / "tokenizer").mkdir()
    MGXLPipeline(**tiny_components_xl(tmp_path / "tokenizer")).save_pretrained(tmp_path / "big")
    studio = Studio(Models([str(tmp_path / "big")]))
    given = {name: {"picture": str(uploads_folder / "leaf.png")} for name in GRANULARITIES}
    (path,) = studio.generate(given, settings(prompt="a", guidance=5.0))
    assert read_recipe(path)["model"] == "big" and studio.models.loaded.pipe.__class__ is MGXLPipeline
    with PIL.Image.open(uploads_folder / "scene.png") as photo:
        mask = PIL.Image.new("L", photo.size)
        mask.paste(255, (40, 40, 120, 120))
        _, _, differing = studio.edit(given, settings(prompt="a"), Edit(photo.convert("RGB"), mask))
    assert differing == 0
    studio.shelf.close()


def test_guidance_is_passed_on_and_restored(studio, given):
    strong, weak = (studio.generate(given, settings(guidance=guidance))[0] for guidance in (6.0, 1.0))
    assert (pixels(strong) != pixels(weak)).any()
    assert read_recipe(strong)["guidance_scale"] == 6.0 and restored(studio, strong).settings.guidance == 6.0


@pytest.mark.parametrize(
    "changed, recorded",
    [({"coarseness": 2.0}, {"texture_scale": 2.0}), ({"assignment": "free"}, {"assignment": "free"})],
)
def test_coarseness_and_assignment_are_passed_on_and_restored(studio, given, changed, recorded):
    (other,), (plain,) = (studio.generate(given, settings(**options)) for options in (changed, {}))
    assert (pixels(other) != pixels(plain)).any()
    assert read_recipe(other).items() >= recorded.items()
    ((name, value),) = changed.items()
    assert getattr(restored(studio, other).settings, name) == value


def test_a_deployer_sets_the_guidance_of_a_new_page(monkeypatch):
    assert start_guidance() == 1.5
    monkeypatch.setenv("MG_GUIDANCE", "7.5")
    assert start_guidance() == 7.5
    for said in ("much", "0.5", "nan"):
        monkeypatch.setenv("MG_GUIDANCE", said)
        with pytest.raises(ValueError, match="MG_GUIDANCE must be a number from 1 to 15"):
            start_guidance()


def test_a_new_page_takes_the_steps_that_the_model_wants_or_the_deployer_sets(monkeypatch):
    for name in ("MG_MODEL", "MG_STEPS"):
        monkeypatch.delenv(name, raising=False)
    assert start_steps() == 4
    monkeypatch.setenv("MG_MODEL", "a/base")
    assert start_steps() == 20
    monkeypatch.setenv("MG_STEPS", "8")
    assert start_steps() == 8
    for said in ("much", "0", "51", "2.5"):
        monkeypatch.setenv("MG_STEPS", said)
        with pytest.raises(ValueError, match="MG_STEPS must be a whole number from 1 to 50"):
            start_steps()


def test_files_and_stop_signs_go_after_a_time(tmp_path):
    shelf = Shelf(age=0.2)
    old, sign = shelf.new("old.png"), StopSign(shelf, "../../me")
    old.write_bytes(b"1")
    sign.put_up()
    assert sign.is_up() and not StopSign(shelf, "another").is_up() and sign.path.parent == shelf.folder
    time.sleep(0.3)
    new = shelf.new("new.png")
    assert not old.exists() and not sign.is_up() and new.parent.is_dir()
    shelf.close()
    assert not shelf.folder.exists()
