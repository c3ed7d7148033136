"""`mg-diffusion generate | edit | palette | encode | bench`, run in this process with a very small untrained model."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest
import torch
from tiny_repository import SIZE, draw

from mg_diffusion import MGPipeline, __version__, loading
from mg_diffusion.cli import main
from mg_diffusion.recipe import describe_file, read_recipe


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """Three references, a photograph and its mask, and things that are none."""
    folder = tmp_path_factory.mktemp("files")
    made = {
        name: draw(folder / f"{name}.png", seed) for seed, name in enumerate(["color", "texture", "shape", "photo"])
    }
    mask = PIL.Image.new("L", (48, 40))
    mask.paste(255, (10, 8, 34, 30))
    mask.save(folder / "mask.png")
    mask.resize((20, 20)).save(folder / "small.png")
    PIL.Image.new("L", (48, 40)).save(folder / "black.png")
    (folder / "notes.png").write_text("no picture")
    return {**{name: str(path) for name, path in made.items()}, "folder": str(folder)} | {
        name: str(folder / f"{name}.png") for name in ("mask", "small", "black", "notes")
    }


@pytest.fixture
def run(model, tmp_path, capsys):
    """run(flags...) runs a command with the small model at two steps; returns what was printed."""

    def command(*flags: str) -> str:
        capsys.readouterr()
        status = main([*flags, "--model", str(model), "--steps", "2"])
        printed = capsys.readouterr()
        assert status == 0, printed.err
        return printed.out

    return command


def pixels(path: str | Path) -> np.ndarray:
    with PIL.Image.open(path) as image:
        return np.array(image.convert("RGB"))


def three(files: dict[str, str]) -> list[str]:
    return ["--color", files["color"], "--texture", files["texture"], "--shape", files["shape"]]


# -- palette ----------------------------------------------------------------------------------------------------------
def test_palette_prints_what_generate_takes(model, files, tmp_path, capsys):
    assert main(["palette", files["photo"], "--colors", "3", "--mask", files["mask"], "--model", str(model)]) == 0
    printed = capsys.readouterr().out.strip()
    assert len(printed.split(",")) == 3 and "\n" not in printed
    out = str(tmp_path / "out.png")
    assert main(["generate", "--color", printed, "-o", out, "--model", str(model), "--steps", "1"]) == 0
    assert read_recipe(out)["references"] == {"color": [{"palette": printed.split(",")}]}


def test_palette_prints_nothing_but_the_palette(model, files, tmp_path, capsys):
    gray = str(tmp_path / "gray.png")
    PIL.Image.linear_gradient("L").resize((48, 40)).save(gray)
    assert main(["palette", files["photo"], "--mask", gray, "--model", str(model)]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("#") and printed.out.count("\n") == 1
    assert "lighter than middle gray is read" in printed.err


# -- generate ---------------------------------------------------------------------------------------------------------
def test_generate_writes_a_picture_with_its_recipe(run, files, tmp_path, model):
    output = tmp_path / "new folder" / "out.png"
    flags = [*three(files), "--prompt", "a flower", "--negative-prompt", "wool", "--scale", "texture=0.5"]
    assert run("generate", *flags, "--seed", "7", "-o", str(output)) == f"{output}\n"
    assert pixels(output).shape == (SIZE, SIZE, 3)
    recipe = read_recipe(output)
    expected = {
        "command": "generate",
        "prompt": "a flower",
        "negative_prompt": "wool",
        "granularity_scale": {"color": 1.0, "texture": 0.5, "shape": 1.0},
        "references": {name: [describe_file(files[name])] for name in ("color", "texture", "shape")},
        "seed": 7,
        "num_inference_steps": 2,
        "guidance_scale": 1.5,
        "height": SIZE,
        "width": SIZE,
        "model": "tiny-bazaar",
    }
    assert {name: recipe[name] for name in expected} == expected
    assert str(tmp_path) not in json.dumps(recipe) and str(model.parent) not in json.dumps(recipe)


def test_generate_is_the_pipeline_call_it_says_it_is(run, files, tmp_path, model):
    """A granularity of several references, one of them a palette, strengths, size and guidance all arrive."""
    flags = ["--color", files["color"], "--color", "#ff8800:3, #224466", "--shape", files["shape"]]
    flags += ["--scale", "shape=0.7", "--guidance-scale", "4", "--width", "40", "--height", "24", "--seed", "3"]
    run("generate", *flags, "--prompt", "wool", "-o", str(tmp_path / "a.png"))
    expected = MGPipeline.from_pretrained(model)(
        "wool",
        reference_image={"color": [files["color"], ["#ff8800:3", "#224466"]], "shape": files["shape"]},
        granularity_scale={"shape": 0.7},
        guidance_scale=4,
        width=40,
        height=24,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(3),
    ).images[0]
    assert (pixels(tmp_path / "a.png") == np.asarray(expected)).all()
    assert read_recipe(tmp_path / "a.png")["references"]["color"] == [
        describe_file(files["color"]),
        {"palette": ["#ff8800:3", "#224466"]},
    ]


def test_a_seed_gives_the_same_file_again_and_another_seed_another(run, files, tmp_path):
    names = [str(tmp_path / f"{name}.png") for name in "abc"]
    for name, seed in zip(names, ("5", "5", "6"), strict=True):
        run("generate", *three(files), "--seed", seed, "-o", name)
    first, again, other = (Path(name).read_bytes() for name in names)
    assert first == again
    assert (pixels(names[0]) != pixels(names[2])).any() and first != other


def test_several_images_count_the_seed_up(run, files, tmp_path):
    printed = run("generate", *three(files), "--num-images", "2", "--seed", "5", "-o", str(tmp_path / "a.png"))
    run("generate", *three(files), "--seed", "6", "-o", str(tmp_path / "single.png"))
    assert printed.split() == [str(tmp_path / "a-0.png"), str(tmp_path / "a-1.png")]
    assert [read_recipe(path)["seed"] for path in printed.split()] == [5, 6]
    difference = pixels(tmp_path / "a-1.png").astype(int) - pixels(tmp_path / "single.png")
    assert np.abs(difference).max() <= 2  # a batch of two is not computed bit for bit like a batch of one


def test_guidance_and_negative_references_reach_the_pipeline_and_the_recipe(run, files, tmp_path):
    made = {}
    for name, flags in (
        ("plain", []),
        ("guided", ["--guidance", "texture=2"]),
        ("avoided", ["--negative-color", "#ff8800,#102030"]),
    ):
        run("generate", *three(files), *flags, "-o", str(tmp_path / f"{name}.png"))
        made[name] = (pixels(tmp_path / f"{name}.png"), read_recipe(tmp_path / f"{name}.png"))
    assert not np.array_equal(made["guided"][0], made["plain"][0])
    assert not np.array_equal(made["avoided"][0], made["plain"][0])
    assert made["guided"][1]["granularity_guidance"] == {"texture": 2.0}
    assert made["avoided"][1]["negative_references"] == {"color": [{"palette": ["#ff8800", "#102030"]}]}
    assert not {"granularity_guidance", "negative_references"} & set(made["plain"][1])


@pytest.mark.parametrize("curve, expected", [("0:0.5", "0:0.5"), ("1,0", [1.0, 0.0])])
def test_a_schedule_reaches_the_pipeline_and_the_recipe(run, files, tmp_path, curve, expected):
    plain, scheduled = (str(tmp_path / f"{name}.png") for name in ("plain", "scheduled"))
    run("generate", *three(files), "-o", plain)
    run("generate", *three(files), "--schedule", f"color={curve}", "-o", scheduled)
    assert not np.array_equal(pixels(plain), pixels(scheduled))
    assert read_recipe(scheduled)["granularity_schedule"] == {"color": expected}
    assert "granularity_schedule" not in read_recipe(plain)


@pytest.mark.parametrize("name", ["color", "texture", "shape"])
def test_a_reference_matters_and_strength_zero_is_none(run, files, tmp_path, name):
    run("generate", "-o", str(tmp_path / "none.png"))
    run("generate", f"--{name}", files[name], "-o", str(tmp_path / "one.png"))
    run("generate", f"--{name}", files[name], "--scale", f"{name}=0", "-o", str(tmp_path / "zero.png"))
    assert (pixels(tmp_path / "one.png") != pixels(tmp_path / "none.png")).any()
    assert (pixels(tmp_path / "zero.png") == pixels(tmp_path / "none.png")).all()


# -- edit -------------------------------------------------------------------------------------------------------------
def test_edit_keeps_every_pixel_outside_the_mask(run, files, tmp_path):
    output = tmp_path / "edited.png"
    flags = ["--mask", files["mask"], *three(files), "--strength", "0.9", "--padding-mask-crop", "4", "--feather", "2"]
    printed = run("edit", files["photo"], *flags, "-o", str(output))
    assert printed == f"{output}\npixels outside the mask that differ: 0\n"
    changed = (pixels(output) != pixels(files["photo"])).any(2)
    masked = pixels(files["mask"])[..., 0] > 0
    assert changed[masked].mean() > 0.9 and not changed[~masked].any()
    recipe = read_recipe(output)
    expected = {
        "command": "edit",
        "image": describe_file(files["photo"]),
        "mask": describe_file(files["mask"]),
        "strength": 0.9,
        "padding_mask_crop": 4,
        "mask_feather": 2,
        "height": 40,
        "width": 48,
    }
    assert {name: recipe[name] for name in expected} == expected


def test_edit_reads_jpeg_rotation_profile_and_soft_masks(run, files, tmp_path):
    image, mask = PIL.Image.open(files["photo"]), PIL.Image.open(files["mask"]).rotate(90, expand=True)
    exif = PIL.Image.Exif()
    exif[0x0112] = 8  # shown rotated by a quarter
    profile = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
    image.save(tmp_path / "photo.jpg", exif=exif, icc_profile=profile)
    mask.convert("RGB").save(tmp_path / "mask.jpg", quality=60)
    flags = ["--mask", str(tmp_path / "mask.jpg"), "--color", "#ff0000", "-o", str(tmp_path / "out.png")]
    assert "differ: 0" in run("edit", str(tmp_path / "photo.jpg"), *flags)
    with PIL.Image.open(tmp_path / "out.png") as made:
        assert made.size == (40, 48) and made.info["icc_profile"] == profile and "exif" not in made.info


def test_edit_tells_of_a_mask_that_is_not_black_and_white(files, model, tmp_path, capsys):
    soft, crisp = (tmp_path / name for name in ("soft.png", "crisp.png"))
    gray = np.tile(np.linspace(0, 255, 48).astype(np.uint8), (40, 1))
    PIL.Image.fromarray(gray).save(soft)
    PIL.Image.fromarray(255 * (gray > 127).astype(np.uint8)).save(crisp)
    told = {}
    for mask in (soft, crisp):
        out = str(tmp_path / f"{mask.stem}-out.png")
        flags = ["--mask", str(mask), "--model", str(model), "--steps", "2", "-o", out]
        assert main(["edit", files["photo"], *flags]) == 0
        told[mask] = "is not only black and white" in capsys.readouterr().err
    assert told == {soft: True, crisp: False}
    assert (pixels(tmp_path / "soft-out.png") == pixels(tmp_path / "crisp-out.png")).all()


# -- bench ------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "drawn"
    for index in range(33):
        draw(folder / "val" / f"class_{index % 2}" / f"{index}.png", 100 + index)
    draw(folder / "train" / "one.png", 99)
    (folder / "val" / "metadata.jsonl").write_text("{}\n")
    return folder


def test_bench_writes_figures_settings_and_a_grid(run, data, tmp_path):
    output, grid = tmp_path / "bench.json", tmp_path / "drawn" / "grid.png"
    flags = ["--size", str(SIZE), "--triples", "3", "--batch-size", "2", "--quick"]
    flags += ["--sections", "retrieval_photographic", "-o", str(output), "--pictures", str(grid.parent)]
    printed = run("bench", "--data", str(data), *flags)
    result = json.loads(output.read_text())
    settings = result["settings"]
    assert {name: settings[name] for name in ("data", "split", "pictures", "seed", "model")} == {
        "data": "drawn",
        "split": "val",
        "pictures": 33,
        "seed": 0,
        "model": "tiny-bazaar",
    }
    assert settings["call"] == {
        "height": SIZE,
        "width": SIZE,
        "num_inference_steps": 2,
        "guidance_scale": 1.5,
        "granularity_scale": {"color": 1.0, "texture": 1.0, "shape": 1.0},
    }
    found = result["retrieval_photographic"]
    assert found["reference_lines"]["copy_color"]["pairwise"]["color"]["mean"] == 1
    assert found["settings"]["triples"] == 3
    assert str(data.parent) not in output.read_text()
    assert (
        "| **tiny-bazaar** |" in printed
        and "| Reinhard color transfer" in printed
        and f"{output}\n{grid}\n" in printed
    )
    assert pixels(grid).shape[0] == 4 * (SIZE + 4)
    assert read_recipe(grid)["pictures"] == 33


def test_bench_gives_the_same_figures_again(run, data, tmp_path):
    flags = ["bench", "--data", str(data), "--size", str(SIZE), "--triples", "2", "--seed", "4", "--quick"]
    for name in ("a.json", "b.json"):
        run(*flags, "--sections", "retrieval_photographic", "-o", str(tmp_path / name))
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()


# -- errors -----------------------------------------------------------------------------------------------------------
GENERATE = ["generate", "-o", "{tmp}/out.png"]
EDIT = ["edit", "{photo}", "--mask", "{mask}", "-o", "{tmp}/out.png"]
BENCH = ["bench", "--data", "{folder}", "-o", "{tmp}/out.json"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([*GENERATE, "--color", "{folder}/nosuch.jpg"], "no reference picture at"),
        ([*GENERATE, "--color", "ff8800"], "A palette begins with"),
        ([*GENERATE, "--color", "#ff88"], "A palette entry must be"),
        ([*GENERATE, "--color", "#ff8800:0"], "positive weight"),
        ([*GENERATE, "--shape", "#ff8800"], "they serve as --color"),
        ([*GENERATE, "--texture", "{notes}"], "cannot be read as a picture"),
        ([*GENERATE, "--texture", "{folder}"], "is a folder, of which each picture makes one: --output-dir"),
        ([*GENERATE, "--scale", "hue=1"], "must be color=, texture= or shape="),
        ([*GENERATE, "--scale", "color"], "must be color=, texture= or shape="),
        ([*GENERATE, "--scale", "color=-1"], "at least 0"),
        ([*GENERATE, "--scale", "color=much"], "must be a number"),
        (
            [*GENERATE, "--scale", "shape=0.5"],
            "--scale shape=... is about the strength of a shape reference, and none",
        ),
        ([*GENERATE, "--schedule", "shape=0:0.5"], "Add --shape, or leave this --schedule out"),
        ([*GENERATE, "--color", "#ff8800", "--schedule", "color=0.5:0.1"], "0 <= START < END <= 1, such as"),
        ([*GENERATE, "--color", "#ff8800", "--schedule", "color=0:1.1"], "0 <= START < END <= 1, such as"),
        ([*GENERATE, "--feature-window", "1:0"], "--feature-window: must be START:END in fractions"),
        (
            [*GENERATE, "--color", "#ff8800", "--schedule", "color=0:0.1", "--steps", "5"],
            "none of the 5 steps lies in it",
        ),
        ([*GENERATE, "--feature-window", "0.3:0.31"], "--feature-window 0.3:0.31: none of the 20 steps"),
        ([*EDIT, "--steps", "5000"], "--steps must be at most 1000, as many as the model was trained with, got 5000"),
        ([*GENERATE, "--model", "/nosuch/model"], "There is no folder '/nosuch/model'"),
        ([*GENERATE, "--encoder", "./nosuch"], "There is no folder './nosuch'"),
        (
            [*GENERATE, "--model", "nobody/nothing"],
            "'nobody/nothing': no folder here, and not to be had from the Hub.",
        ),
        ([*GENERATE, "--color", "#ff8800", "--schedule", "color=1,much"], "must be a number"),
        ([*GENERATE, "--guidance", "color=1"], "needs a color reference, or a negative one"),
        ([*GENERATE, "--negative-texture", "#ff8800"], "not as --texture"),
        ([*GENERATE, "--schedule", "hue=0:1"], "must be color=, texture= or shape= and START:END"),
        ([*GENERATE, "--color", "#ff8800", "--scale", "shape=0.5"], "Add --shape, or leave this --scale out"),
        ([*GENERATE, "--color", "#ff8800", "--scale", "color=1", "--scale", "color=2"], "color is given twice"),
        ([*EDIT, "--context-scale", "0", "--scale", "texture=1"], "Add --texture, or leave this --scale out"),
        ([*GENERATE, "--steps", "0"], "whole number of at least 1"),
        ([*GENERATE, "--seed", "-1"], "whole number of at least 0"),
        ([*GENERATE, "--seed", str(2**64)], "--seed: must be at most 18446744073709551615, got"),
        ([*GENERATE, "--seed", str(2**64 - 1), "--num-images", "2"], "Give --seed 18446744073709551614 or less"),
        ([*GENERATE, "--steps", str(2**63)], "--steps: must be at most 9223372036854775807, got"),
        (["generate", "-o", ""], "-o/--output: is empty: a variable of the shell without a value? Give one"),
        (["compose", "--color", "#ff8800", "--output-dir", " "], "--output-dir: is empty"),
        (["edit", "{photo}", "--mask", "", "-o", "{tmp}/out.png"], "--mask: is empty"),
        (["edit", "", "--mask", "{mask}", "-o", "{tmp}/out.png"], "PICTURE: is empty"),
        ([*GENERATE, "--model", ""], "--model: is empty"),
        (["palette", ""], "PICTURE: is empty"),
        ([*GENERATE, "--num-images", "two"], "whole number of at least 1"),
        ([*GENERATE, "--guidance-scale", "nan"], "must be a number"),
        ([*GENERATE, "--guidance-scale", "1e30"], "--guidance-scale: must be from 0 to 100, got '1e30'"),
        ([*GENERATE, "--guidance-scale=-1"], "--guidance-scale: must be from 0 to 100, got '-1'"),
        (
            [*GENERATE, "--feature-guidance", "color=1e30"],
            "--feature-guidance: must be at least 0 (0 is off, 1 is as trained), at most 100; got",
        ),
        (
            [*GENERATE, "--guidance", "color=1e30"],
            "--guidance: must be at least 0 (0 is off, 1 is as trained), at most 100; got",
        ),
        (
            [*GENERATE, "--scale", "color=1e30"],
            "--scale: must be at least 0 (0 is off, 1 is as trained), at most 100; got",
        ),
        ([*GENERATE, "--schedule", "color=1,1e30"], "--schedule: must be from 0 to 100, got '1e30'"),
        ([*EDIT, "--context-scale", "1e30"], "--context-scale: must be from 0 to 100, got '1e30'"),
        ([*GENERATE, "--width", "33"], "--width and --height must be multiples of 2, got 33. Near by is 32"),
        ([*GENERATE, "--device", "abacus"], "`device` must be"),
        ([*GENERATE, "--device", "meta"], "Nothing can be computed on the device 'meta' here"),
        ([*GENERATE, "--num-images", "1000000000000"], "--num-images: must be at most 10000"),
        ([*GENERATE, "--model", "{folder}/nosuch/model"], "There is no folder"),
        ([*GENERATE, "--model", "{folder}"], "model_index.json"),
        ([*GENERATE, "--hue", "x"], "unrecognized arguments: --hue x\n(see `mg-diffusion generate --help`)"),
        ([*GENERATE, "--colour=x"], "--colour=x (did you mean --color?)\n(see `mg-diffusion generate --help`)"),
        (["recolor", "{photo}", "--colors", "#ff8800", "-o", "{tmp}/out.png"], "did you mean --color?"),
        (
            ["data", "check", "{folder}", "--jsn", "a"],
            "(did you mean --json?)\n(see `mg-diffusion data check --help`)",
        ),
        (["recolour"], ": did you mean recolor?"),
        (["generate", "--color", "#ff8800"], "one of the arguments -o/--output --output-dir is required"),
        (["generate", "-o", "{tmp}/out.gif"], "must be a .png, .jpg, .jpeg, .webp, .tif or .tiff file"),
        (["generate", "-o", "{notes}/out.png"], "Nothing can be written"),
        (["generate", "--color", "{color}", "-o", "{color}"], "is an input of the same run"),
        (["edit", "{photo}", "--mask", "{mask}", "-o", "{photo}"], "is an input of the same run"),
        (["edit", "{photo}", "--mask", "{mask}", "-o", "{mask}"], "is an input of the same run"),
        (["edit", "{photo}", "--mask", "{small}", "-o", "{tmp}/out.png"], "must have the size of the picture"),
        (["edit", "{photo}", "--mask", "{black}", "-o", "{tmp}/out.png"], "nothing would be edited"),
        (["edit", "{photo}", "--mask", "{notes}", "-o", "{tmp}/out.png"], "cannot be read as a picture"),
        (["edit", "{folder}/nosuch.png", "--mask", "{mask}", "-o", "{tmp}/out.png"], "There is no picture at"),
        (["edit", "{photo}", "-o", "{tmp}/out.png"], "required: --mask"),
        ([*EDIT, "--strength", "2"], "`strength` must be"),
        ([*EDIT, "--padding-mask-crop", "-3"], "whole number of at least 0"),
        (["bench", "--data", "{folder}/nosuch", "-o", "{tmp}/out.json"], "Expected is a folder with at least 32"),
        (BENCH, "holds 8 pictures. Expected"),
        ([*BENCH, "--split", "test"], "There is no folder"),
        ([*BENCH, "--pictures", "{notes}"], "--pictures is a folder to draw into"),
        ([*BENCH, "--size", "20"], "whole number of at least 26"),
        ([*BENCH, "--sections", "diversity"], "diversity needs --features FILE"),
        ([*BENCH, "--sections", "quality", "--features", "{notes}"], "judges the pictures of retrieval_photographic"),
        (["bench", "--data", "{folder}", "-o", "{tmp}/out.txt"], "must be a .json file"),
        ([*BENCH, "--sections", "nosuch"], "no section 'nosuch'; known are retrieval_synthetic"),
        (["paint"], "invalid choice"),
        (["enlarge", "{photo}", "--factor", "1.5", "-o", "{tmp}/a.png"], "invalid choice: 1.5 (choose from"),
        (["palette", "{folder}/nosuch.png"], "nosuch.png"),
        (["palette", "{photo}", "--colors", "0"], "whole number of at least 1"),
        (["palette", "{photo}", "--mask", "{small}"], "mask must have the size of the reference"),
        (["encode", "{photo}", "-g", "hue", "-o", "{tmp}/a.safetensors"], "invalid choice: 'hue'"),
        (
            ["encode", "{photo}", "-g", "color", "--size", "512", "-o", "{tmp}/a.safetensors"],
            "A color card serves pictures of all sizes: leave --size out",
        ),
        (
            ["encode", "{photo}", "-g", "shape", "--size", "2048x1024", "-o", "{tmp}/a.safetensors"],
            "up to 1024 x 1024 pixels, or others of that area; got a side of 1449. For larger ones give the picture",
        ),
        (["encode", "{photo}", "-g", "color", "-o", "{tmp}/a.png"], "must be a .safetensors file"),
        (["encode", "{folder}/nosuch.png", "-g", "color", "-o", "{tmp}/a.safetensors"], "There is no picture at"),
        (["encode", "{notes}", "-g", "color", "-o", "{tmp}/a.safetensors"], "cannot be read as a picture"),
        ([], "required: generate | compose | edit | recolor | retexture | remove"),
    ],
)
def test_errors_say_what_to_do_and_write_nothing(files, model, tmp_path, capsys, flags, message):
    (tmp_path / "kept").mkdir()
    before = {path: path.read_bytes() for path in Path(files["folder"]).iterdir()}
    places = {**files, "tmp": str(tmp_path)}
    command = [flag.format(**places) for flag in flags]
    if command and command[0] in ("generate", "edit", "palette", "encode", "bench") and "--model" not in command:
        command += ["--model", str(model)]
    try:
        status = main(command)
    except SystemExit as stop:  # argparse
        status = stop.code
    printed = capsys.readouterr()
    assert status == 2
    assert message in printed.err and "Traceback" not in printed.err
    assert [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert {path: path.read_bytes() for path in Path(files["folder"]).iterdir()} == before


def test_code_that_a_model_brings_runs_only_when_told_to(model, tmp_path, capsys, monkeypatch):
    foreign = tmp_path / "foreign"
    MGPipeline.from_pretrained(model).save_pretrained(foreign)
    (foreign / "vae" / "modeling_autoencoder_haar.py").rename(foreign / "vae" / "foreign_codec.py")
    index = json.loads((foreign / "model_index.json").read_text())
    (foreign / "model_index.json").write_text(json.dumps({**index, "vae": ["foreign_codec", "AutoencoderHaar"]}))
    command = ["generate", "--model", str(foreign), "--steps", "1", "-o", str(tmp_path / "out.png")]
    assert main(command) == 2
    assert "--trust-remote-code" in capsys.readouterr().err
    assert main([*command, "--trust-remote-code"]) == 0
    assert read_recipe(tmp_path / "out.png")["model"] == "foreign"
    monkeypatch.setattr(loading.importlib.resources, "files", lambda package: foreign)
    assert main(["generate", "--steps", "1", "-o", str(tmp_path / "out.png")]) == 2  # as the default model, too


def test_a_missing_default_model_is_explained(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(loading.importlib.resources, "files", lambda package: tmp_path)
    assert main(["generate", "-o", str(tmp_path / "out.png")]) == 2
    assert "embedded default model is not in this installation" in capsys.readouterr().err


def test_the_default_model_is_the_embedded_one(monkeypatch, model, tmp_path):
    monkeypatch.setattr(loading.importlib.resources, "files", lambda package: model)
    assert main(["generate", "--steps", "1", "-o", str(tmp_path / "out.png")]) == 0
    assert read_recipe(tmp_path / "out.png")["model"] == "mg-bazaar (embedded)"


def test_what_the_embedded_model_can_not_is_told(monkeypatch, model, files, tmp_path, capsys):
    monkeypatch.setattr(loading.importlib.resources, "files", lambda package: model)
    one, edit = (
        ["--steps", "1", "-o", str(tmp_path / "out.png"), "--force"],
        ["edit", files["photo"], "--mask", files["mask"]],
    )
    size, other = ["--size", "16"], ["--model", str(model)]
    told = []
    for flags in (
        ["generate", "--prompt", "a red rose"],
        ["generate"],
        edit,
        ["generate", "--color", files["color"]],
        ["generate", "--color", files["color"], "--width", "16", "--height", "64"],
        ["generate", *size, *other],
    ):
        assert main([*flags, *one]) == 0
        told.append([line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")])
    assert [len(lines) for lines in told] == [1, 1, 1, 0, 1, 0]
    assert "a prompt alone says little" in told[0][0] and "Give --color" in told[0][0]
    assert "neither a prompt nor references" in told[1][0] and told[2] == told[1]
    assert "a side of 16 pixels is below the 64" in told[4][0]


def test_default_steps_of_the_command_line_are_those_of_the_pipelines():
    from mg_diffusion.cli.steps import DEFAULTS
    from mg_diffusion.pipelines.components import FEW_STEPS

    assert {True: FEW_STEPS, False: MGPipeline.default_steps} == DEFAULTS


def test_version_as_a_module():
    done = subprocess.run([sys.executable, "-m", "mg_diffusion.cli", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"mg-diffusion {__version__}\n")


def test_the_last_seed_and_an_empty_prompt_are_taken(run, tmp_path):
    run("generate", "--prompt", "", "--seed", str(2**64 - 1), "-o", str(tmp_path / "a.png"))
    assert read_recipe(tmp_path / "a.png")["seed"] == 2**64 - 1


@pytest.mark.parametrize("behind", ["weight=2,weight=3", "region=0:0:1:1,region=mask.png", "scale=1,weight=2,scale=2"])
def test_what_is_said_twice_behind_a_reference_is_refused(behind):
    from mg_diffusion.cli.references import split_reference

    name = behind.partition("=")[0]
    with pytest.raises(ValueError, match=f"Behind a reference {name} stands once, it is given twice"):
        split_reference(f"a.png,{behind}")
    assert split_reference(f"a.png,{behind.rpartition(',')[0]}")[1]  # as the message says
