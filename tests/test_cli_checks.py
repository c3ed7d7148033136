"""What can be told before a model is loaded is told before torch is imported; forms of pictures have a remedy that works."""

import re
import subprocess
import sys
from fractions import Fraction

import numpy as np
import PIL.Image
import pytest
from tiny_repository import draw

from mg_diffusion.cli import main
from mg_diffusion.edits import check_edit
from mg_diffusion.recipe import read_recipe


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "photo.png", 0)
    photo = PIL.Image.open("photo.png")
    photo.convert("CMYK").save("press.jpg")
    gray = np.asarray(photo.convert("L")).astype(np.uint16) * 257
    PIL.Image.fromarray(gray).save("gray16.png")
    strokes = photo.convert("RGB")
    strokes.paste("#ff0000", (8, 8, 20, 14))
    strokes.convert("CMYK").save("strokes.tif")
    PIL.Image.new("L", photo.size).save("black.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "photo.png").read_bytes()[:600])
    for name, size in (("mask", (48, 40)), ("small", (20, 20))):
        mask = PIL.Image.new("L", size)
        mask.paste(255, (4, 4, 12, 12))
        mask.save(f"{name}.png")
    return tmp_path


@pytest.fixture
def deep(files):
    """A file with colors of 16 bits."""
    cv2 = pytest.importorskip("cv2")
    pixels = np.random.default_rng(0).integers(0, 65536, (40, 48, 3)).astype(np.uint16)
    cv2.imwrite("deep.png", pixels)
    return "deep.png"


COLOR = ["--color", "#0a9396,#e9d8a6"]
AREA = ["--mask", "mask.png"]
SCALE = "A texture's scale, times `texture_scale`, must be a number from 0.125 to 8 .*, got {} and {}"
REFUSED = [
    (["generate", "--color", "#12"], "A palette entry must be"),
    (["generate", "--shape", "torn.png"], "'torn.png' cannot be read as a picture"),
    (["generate", "--shape", "press.jpg"], "'press.jpg': A reference of mode CMYK .* --convert reads such pictures"),
    (["generate", "--texture", "photo.png,mask=small.png"], "mask must have the size of the reference"),
    (["generate", "--texture", "photo.png,weight=-1"], "weight must be a positive number.* got -1.0"),
    (["generate", "--color", "#0a9396,weight=0"], "weight must be a positive number.* got 0.0"),
    (["generate", "--negative-shape", "photo.png,weight=-1"], "weight must be a positive number"),
    (["generate", "--texture", "photo.png,region=black.png"], "region is empty .all black.. White is where"),
    (["generate", "--texture", "photo.png,region=torn.png"], "'torn.png' cannot be read as a picture"),
    (["generate", "--texture", "photo.png,region=0.5:0:0.2:1"], "0 <= left < right <= 1 .*got .0.5, 0.0, 0.2, 1.0."),
    (["generate", "--texture", "photo.png", "--texture-scale", "100"], SCALE.format("1.0", "100.0")),
    (["generate", "--texture", "photo.png,scale=8", "--texture-scale", "2"], SCALE.format("8.0", "2.0")),
    (["generate", "--shape", "photo.png,scale=2"], "a shape reference has none"),
    (["generate", "--color", "#0a9396,mask=mask.png"], "A palette takes a weight and a region, but no mask"),
    (["variation", "photo.png", "--texture-scale", "100"], SCALE.format("1.0", "100.0")),
    (["compose", "--shape", "torn.png"], "'torn.png' cannot be read"),
    (["compose", "--texture", "photo.png,weight=-1"], "weight must be a positive number"),
    (["edit", "photo.png", "--mask", "small.png"], "mask must have the size of the picture, .48, 40., got .20, 20."),
    (["edit", "press.jpg", "--mask", "mask.png"], "'press.jpg': `image` has the mode CMYK.*--convert"),
    (["recolor", "photo.png", *COLOR, "--mask", "small.png"], "The mask must have the size of the picture"),
    (["recolor", "photo.png", *COLOR, "--mask", "small.png"], "ImageMagick's -sample"),
    (["recolor", "photo.png", *COLOR, "--select", "orange"], "A selection .`select`, `--select`. is .*got 'orange'"),
    (["recolor", "photo.png", *COLOR, "--select", "#aabbcc:2"], "without a weight, got '#aabbcc:2'"),
    (["recolor", "photo.png", *COLOR, "--select", "#aabbcc", "--tolerance", "200"], "`tolerance` is a Delta-E"),
    (["recolor", "photo.png", "--hint", "photo.png"], "Nothing is painted in the hint"),
    (["recolor", "photo.png", "--hint", "strokes.tif"], "'strokes.tif': .*CMYK.*--convert"),
    (["recolor", "photo.png", "--hint", "nosuch.png"], "There is no picture at 'nosuch.png'"),
    (
        ["recolor", "photo.png", "--color", "photo.png,region=0:0:1:1"],
        "`recolor` lays its colors .* leave the region out",
    ),
    (["recolor", "gray16.png", *COLOR], "'gray16.png': `recolor` makes colors.*--convert"),
    (["recolor", "press.jpg", *COLOR], "'press.jpg': .*CMYK.*--convert"),
    (["retexture", "photo.png", "--texture", "torn.png"], "'torn.png' cannot be read"),
    (["retexture", "photo.png", "--texture", "photo.png,region=mask.png"], "`retexture` lays .* leave the region out"),
    (["remove", "photo.png"], "`remove` needs a mask: the picture has no alpha.*--mask"),
    (["outpaint", "photo.png", "--left", "30", "--right", "30"], "left and right together add 30 . 30 = 60"),
    (["outpaint", "photo.png"], "at least 1 on some side"),
    (["denoise", "photo.png", "--noise-level", "99"], "`noise_level` must be a number from 0"),
    (["enhance", "photo.png", "--strength", "2"], "`strength` must be a number from 0"),
    (["enhance", "photo.png", "--color", "photo.png,region=0:0:1:1"], "`enhance` tones .* leave the region out"),
    (["enlarge", "photo.png", "--strength", "2"], "`strength` must be a number from 0"),
    (["enlarge", "photo.png", "--texture", "photo.png,region=0:0:1:1"], "`enlarge` lays .* leave the region out"),
    (["enlarge", "photo.png", "--texture", "photo.png", "--texture-scale", "100"], SCALE.format("1.0", "100.0")),
    (["reshape", "photo.png", *COLOR], "`reshape` needs a mask.*--mask"),
    (["reshape", "photo.png", *AREA, *COLOR, "--shape", "photo.png,region=0:0:1:1"], "`reshape` lays its shape"),
    (["reshape", "photo.png", "--mask", "mask.png"], "`reshape` needs a color or a texture reference"),
    (["variation", "press.jpg"], "CMYK.*--convert"),
    (["palette", "torn.png"], "'torn.png' cannot be read"),
    (["encode", "press.jpg", "-g", "color"], "'press.jpg': A reference of mode CMYK.*--convert"),
]
OUTPUT = {"palette": [], "encode": ["-o", "never.safetensors"]}


def command_of(flags):
    return [*flags, *OUTPUT.get(flags[0], ["-o", "never.png"])]


@pytest.mark.parametrize(("flags", "message"), REFUSED, ids=[" ".join(flags) for flags, _ in REFUSED])
def test_what_is_wrong_is_told_without_advice_for_python(files, capsys, monkeypatch, flags, message):
    monkeypatch.setattr("mg_diffusion.cli.generation.load_pipeline", None)
    before = sorted(files.iterdir())
    assert main(command_of(flags)) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and re.search(message, told), told
    assert not any(word in told for word in ("convert('RGB')", "np.asarray", "cv2", "PIL.")), told
    assert sorted(files.iterdir()) == before


def test_a_colored_mask_has_a_remedy_outside_python_too(files, capsys):
    assert main(["recolor", "photo.png", *COLOR, "--mask", "photo.png", "-o", "never.png"]) == 2
    assert "Save it in black and white with an image program; or, in Python, " in capsys.readouterr().err


def test_torch_is_not_imported_for_it(files):
    code = (
        f"import sys; from mg_diffusion.cli import main; codes = [main(row) for row in "
        f"{[command_of(flags) for flags, _ in REFUSED]!r}]; assert set(codes) == {{2}}, codes; "
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_check_reads_transparent_pictures_without_torch(files):
    code = """
import sys
import numpy as np, PIL.Image
from mg_diffusion.edits import check_edit
image = PIL.Image.open("photo.png").convert("RGBA")
image.putalpha(PIL.Image.fromarray((np.indices((40, 48)).sum(0) % 3 * 127).astype(np.uint8)))
check_edit("recolor", image, None, {"color": ["#112233"]})
check_edit("remove", image, None, {})
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_check_passes_what_an_edit_takes(files):
    image, mask = PIL.Image.open("photo.png"), PIL.Image.open("mask.png")
    for name in ("recolor", "retexture", "remove", "denoise", "enhance", "reshape"):
        check_edit(name, image, mask, {"color": ["#112233"], "texture": image})
    check_edit("outpaint", image, None, {}, (1, 2, 3, 4))
    check_edit("enlarge", image, None, {}, factor=4)
    check_edit("variation", image, None, {})


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("recolor", {"tolerance": True}, "a Delta-E"),
        ("recolor", {"mask_feather": 10**30}, "at most"),
        ("recolor", {"granularity_scale": {"texture": "x"}}, "strength of texture"),
        ("remove", {"padding_mask_crop": 2.0}, "number of pixels"),
        ("denoise", {"noise_level": "10"}, "`noise_level` must be a number"),
        ("enhance", {"strength": True}, "`strength` must be a number"),
        ("enlarge", {"factor": 2.0}, "`factor` must be 2 or 4"),
        ("enlarge", {"granularity_scale": 99}, "strength of texture"),
    ],
)
def test_a_check_reads_numbers_as_the_edit_does(files, name, given, message):
    """Those of the edits are in `test_edit_numbers.py`."""
    image, mask = PIL.Image.open("photo.png"), PIL.Image.open("mask.png")
    with pytest.raises(ValueError, match=message):
        check_edit(name, image, mask, {"color": ["#112233"]}, **given)
    narrow = {"tolerance": np.uint8(20), "mask_feather": np.uint8(255), "padding_mask_crop": np.int8(100)}
    check_edit(name, image, mask, {"color": ["#112233"]}, factor=np.int64(4), strength=Fraction(1, 2), **narrow)
    check_edit("outpaint", image, None, {}, (np.uint8(4), 0, np.int64(44), 0))
    with pytest.raises(ValueError, match="together add 40 . 40 = 80"):
        check_edit("outpaint", image, None, {}, (np.uint8(40), 0, np.uint8(40), 0))


@pytest.mark.parametrize(
    ("flags", "mode"),
    [
        (["recolor", "press.jpg", *COLOR], "RGB"),
        (["recolor", "gray16.png", *COLOR], "RGB"),
        (["outpaint", "gray16.png", "--left", "8"], "L"),
        (["edit", "press.jpg", "--mask", "mask.png", *COLOR, "--steps", "1"], "RGB"),
        (["generate", "--shape", "press.jpg,weight=2", "--steps", "1"], "RGB"),
        (["compose", "--shape", "press.jpg", "--size", "64"], "RGB"),
    ],
    ids=lambda one: " ".join(one[:2]) if isinstance(one, list) else one,
)
def test_converting_is_the_remedy_and_is_told_and_repeated(files, model, capsys, flags, mode):
    named = [] if flags[0] == "compose" else ["--model", str(model)]
    assert main([*flags, "--convert", *named, "-o", "out.png"]) == 0
    assert "is read in 8 bits as" in capsys.readouterr().err
    made, recipe = PIL.Image.open("out.png"), read_recipe("out.png")
    assert made.mode == mode and recipe["convert"] is True
    assert main(["recipe", "out.png", "-o", "again.png", *named]) == 0
    assert np.array_equal(*(np.asarray(PIL.Image.open(name)) for name in ("out.png", "again.png")))
    assert read_recipe("again.png") == recipe


def test_converting_leaves_alone_what_needs_none(files, model, capsys):
    for name, more in (("a.png", []), ("b.png", ["--convert"])):
        assert main(["recolor", "photo.png", *COLOR, *more, "--model", str(model), "-o", name]) == 0
        assert "8 bits" not in capsys.readouterr().err
    assert np.array_equal(*(np.asarray(PIL.Image.open(name)) for name in ("a.png", "b.png")))


def test_colors_of_16_bits_are_refused_by_edits_and_read_in_8_when_told_to(deep, model, capsys):
    for command, *flags in (["recolor", *COLOR], ["denoise"], ["edit", "--mask", "mask.png", *COLOR], ["variation"]):
        assert main([command, deep, *flags, "-o", "out.png"]) == 2
        told = capsys.readouterr().err
        assert "'deep.png': The picture has colors of 16 bits, of which Pillow reads 8. --convert reads" in told
    assert main(["recolor", deep, *COLOR, "--convert", "--model", str(model), "-o", "out.png"]) == 0
    assert PIL.Image.open("out.png").mode == "RGB" and "is read in 8 bits as RGB" in capsys.readouterr().err
    assert main(["compose", "--shape", deep, "--size", "64", "-o", "composed.png"]) == 0  # as docs/references.md says


def test_retexture_without_a_texture_is_told_in_words():
    with pytest.raises(ValueError, match="`retexture` needs a texture reference"):
        check_edit("retexture", PIL.Image.new("RGB", (64, 64)), None, {}, [0] * 4)


@pytest.mark.parametrize("form", ["strokes.tif", "strokes16.png"])
def test_converting_reads_strokes_too(files, model, capsys, form):
    cv2 = pytest.importorskip("cv2")
    strokes = np.asarray(PIL.Image.open("photo.png").convert("RGB")).copy()
    strokes[8:14, 8:20] = (255, 0, 0)
    PIL.Image.fromarray(strokes).save("strokes.png")
    cv2.imwrite("strokes16.png", strokes[..., ::-1].astype(np.uint16) * 257)
    command = ["recolor", "photo.png", "--tolerance", "60", "--model", str(model)]
    assert main([*command, "--hint", form, "-o", "out.png"]) == 2
    told = capsys.readouterr().err
    assert f"'{form}': " in told and "--convert reads such pictures" in told and "cv2" not in told
    assert main([*command, "--hint", form, "--convert", "-o", "out.png"]) == 0
    assert f"{form} is read in 8 bits as RGB" in capsys.readouterr().err
    assert main([*command, "--hint", "strokes.png", "-o", "plain.png"]) == 0
    made, plain = (np.asarray(PIL.Image.open(name)) for name in ("out.png", "plain.png"))
    if form == "strokes16.png":  # the other one is of other inks
        assert np.array_equal(made, plain)
    else:
        assert not np.array_equal(made, np.asarray(PIL.Image.open("photo.png").convert("RGB")))
    assert main(["recipe", "out.png", "-o", "again.png", "--model", str(model)]) == 0
    assert np.array_equal(made, np.asarray(PIL.Image.open("again.png")))


@pytest.mark.parametrize("converts", [[], ["--convert"]])
@pytest.mark.parametrize("command", ["recolor", "edit"])
def test_a_picture_and_its_mask_are_decoded_once(files, model, monkeypatch, command, converts):
    opened, real = [], PIL.Image.open
    monkeypatch.setattr(
        PIL.Image, "open", lambda file, *rest, **more: opened.append(str(file)) or real(file, *rest, **more)
    )
    steps = ["--steps", "1"] if command == "edit" else []
    assert main([command, "photo.png", *AREA, *COLOR, *steps, *converts, "--model", str(model), "-o", "out.png"]) == 0
    assert sorted(opened) == ["mask.png", "photo.png"]


def test_a_folder_goes_on_behind_a_form_that_is_refused(files, model, capsys):
    assert main(["recolor", "press.jpg", "photo.png", *COLOR, "--model", str(model), "--output-dir", "out"]) == 1
    assert "error: press.jpg: `image` has the mode CMYK" in capsys.readouterr().err
    assert [path.name for path in (files / "out").iterdir()] == ["photo.png"]
