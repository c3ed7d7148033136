"""Many pictures by one command: what is done is kept, what fails is told, what is killed goes on; and files in general."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from tiny_repository import draw

from mg_diffusion.cli import main
from mg_diffusion.cli.folders import plan, work_through
from mg_diffusion.recipe import part_name, read_recipe


RECOLOR = ["--color", "#0a9396,#e9d8a6,#001219"]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The current folder, with pictures in `in`."""
    monkeypatch.chdir(tmp_path)
    for index in range(3):
        draw(Path("in", f"{index}.png"), index)
    PIL.Image.open("in/2.png").save("in/two.jpg")
    Path("in/2.png").unlink()
    Path("in/notes.txt").write_text("no picture")
    Path("in/.hidden.png").write_text("no picture")
    mask = PIL.Image.new("L", (48, 40))
    mask.paste(255, (10, 8, 34, 30))
    mask.save("mask.png")
    return tmp_path


@pytest.fixture
def run(folder, model, capsys):
    """run(flags...) -> status, standard output, standard error."""

    def command(*flags: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status = main([*flags, "--model", str(model)])
        except SystemExit as stop:  # argparse
            status = stop.code
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return command


def names(place: str) -> list[str]:
    return sorted(os.listdir(place))


def test_a_folder_is_edited_and_what_is_done_is_not_made_again(run):
    status, out, err = run("recolor", "in", *RECOLOR, "--output-dir", "out")
    assert status == 0 and out.split() == ["out/0.png", "out/1.png", "out/two.png"]
    assert names("out") == ["0.png", "1.png", "two.png"] and "3 made, 0 already there, 0 failed" in err
    alone = run("recolor", "in/1.png", *RECOLOR, "-o", "alone.png")
    assert alone[0] == 0 and Path("alone.png").read_bytes() == Path("out/1.png").read_bytes()
    Path("out/1.png").unlink()
    kept = Path("out/0.png").stat().st_mtime_ns
    status, out, err = run("recolor", "in", *RECOLOR, "--output-dir", "out")
    assert status == 0 and out.split() == ["out/1.png"] and "1 made, 2 already there" in err
    assert Path("out/0.png").stat().st_mtime_ns == kept
    status, out, err = run("recolor", "in/0.png", "--color", "#ff0000", "--output-dir", "out", "--force")
    assert status == 0 and read_recipe("out/0.png")["references"] == {"color": [{"palette": ["#ff0000"]}]}


def test_the_sheets_of_a_folder_are_made_later_too_and_overwritten_by_force_alone(run):
    flags = ["--mask", "mask.png", "--seed", "4", "--num-images", "2", "--output-dir", "out"]
    assert run("remove", "in/0.png", *flags)[0] == 0 and names("out") == ["0-0.png", "0-1.png"]
    kept = Path("out/0-0.png").stat().st_mtime_ns
    status, out, err = run("remove", "in/0.png", *flags, "--sheet", "--seed", "9")
    assert status == 0 and out.split() == ["out/0.sheet.png"] and "0 made, 1 already there" in err
    assert read_recipe("out/0.sheet.png")["seeds"] == [4, 5]  # those of the files
    assert Path("out/0-0.png").stat().st_mtime_ns == kept
    whole = Path("out/0.sheet.png").read_bytes()
    assert run("remove", "in/0.png", *flags, "--sheet")[1] == ""
    Path("out/0-1.png").unlink()
    status, out, err = run("remove", "in/1.png", "in/0.png", *flags, "--sheet")
    assert status == 2 and "'out/0.sheet.png' already" in err and "Remove it, or make all anew by --force" in err
    assert names("out") == ["0-0.png", "0.sheet.png"] and Path("out/0.sheet.png").read_bytes() == whole
    assert run("remove", "in/0.png", *flags, "--sheet", "--force")[0] == 0 and "0-1.png" in names("out")
    Path("out/0.sheet.png").unlink()
    Path("out/0-1.png").unlink()
    assert run("remove", "in/0.png", *flags, "--sheet")[0] == 0 and "0.sheet.png" in names("out")


def test_a_sheet_is_no_input(run):
    flags = ["--num-images", "2", "--sheet", "--output-dir", "out", "--steps", "1"]
    draw(Path("out/1.sheet.png"), 7)
    status, out, err = run("generate", "--shape", "in", "--color", "out/1.sheet.png", *flags)
    assert status == 2 and "'out/1.sheet.png' is an input of the same run" in err and names("out") == ["1.sheet.png"]


def test_what_attribution_draws_in_a_folder_is_not_overwritten_either(run):
    flags = ["generate", "--shape", "in", *FEW, "--output-dir", "out"]
    draw(Path("out/1.attribution.png"), 7)
    status, out, err = run(*flags, "--attribution")
    assert status == 2 and "'out/1.attribution.png' already" in err and names("out") == ["1.attribution.png"]
    Path("out/1.attribution.png").unlink()
    assert run(*flags)[0] == 0
    status, out, err = run(*flags, "--attribution")
    assert status == 0 and out == "" and "3 pictures that are there already have no attribution" in err
    assert run(*flags, "--attribution", "--force")[0] == 0 and "1.attribution.png" in names("out")
    assert "no attribution" not in run(*flags, "--attribution")[2]


def test_what_fails_is_told_and_the_others_are_made(run):
    Path("in/0b.png").write_bytes(Path("in/0.png").read_bytes()[:300])
    status, out, err = run("recolor", "in/nosuch.png", "in", *RECOLOR, "--output-dir", "out")
    assert status == 1 and names("out") == ["0.png", "1.png", "two.png"]
    assert "error: in/0b.png: " in err and "error: in/nosuch.png: There is no picture" in err
    assert "3 made, 0 already there, 2 failed\nfailed: in/nosuch.png, in/0b.png\n" in err and "Traceback" not in err
    draw(Path("in/0b.png"), 9)
    assert run("recolor", "in", *RECOLOR, "--output-dir", "out")[0] == 0 and "0b.png" in names("out")


def test_a_path_stands_once_in_what_is_told_of_it(run):
    PIL.Image.open("in/0.png").convert("CMYK").save("in/ink.jpg")
    status, _, err = run("recolor", "in", *RECOLOR, "--output-dir", "out")
    (told,) = [line for line in err.splitlines() if "CMYK" in line]
    assert status == 1 and told.startswith("error: in/ink.jpg: `image` has the mode CMYK") and told.count("ink") == 1


OTHER = "already have other settings"


@pytest.mark.parametrize(
    ("command", "change"),
    [
        (["recolor", "in", *RECOLOR], ["--color", "#00ff00"]),
        (["recolor", "in", *RECOLOR], ["--scale", "color=0.5"]),
        (["outpaint", "in", "--left", "4"], ["--left", "8"]),
        (["remove", "in", "--mask", "mask.png"], ["--seed", "3"]),
        (["variation", "in", "--steps", "1"], ["--steps", "2"]),
        (["variation", "in", "--steps", "1"], ["--prompt", "a leaf"]),
        (["generate", "--shape", "in", "--steps", "1"], ["--color", "#0a9396"]),
        (["generate", "--shape", "in", "--steps", "1", "--schedule", "shape=0:1"], ["--guidance-scale", "2"]),
        (["compose", "--shape", "in", "--color", "#0a9396,#ffffff"], ["--texture-scale", "2"]),
    ],
    ids=lambda flags: " ".join(flags[:3]),
)
def test_what_is_there_with_other_settings_is_told(folder, model, capsys, command, change):
    place = ["--output-dir", "out", *([] if command[0] == "compose" else ["--model", str(model)])]

    def told(*more: str) -> str:
        assert main([*command, *more, *place]) == 0
        return capsys.readouterr().err

    assert "3 made" in told()
    same, other = told(), told(*change)
    assert "3 already there" in same and OTHER not in same
    assert "3 already there" in other and f"3 of those there {OTHER}" in other
    assert "3 made" in told(*change, "--force") and OTHER not in told(*change)


def test_several_results_and_one_mask_for_all(run):
    flags = ["--mask", "mask.png", "--seed", "4", "--num-images", "2", "--output-dir", "out"]
    status, out, _ = run("remove", "in/0.png", "in/1.png", *flags)
    assert status == 0 and names("out") == ["0-0.png", "0-1.png", "1-0.png", "1-1.png"]
    assert out.count("differ: 0\n") == 2 and read_recipe("out/1-1.png")["seed"] == 5
    Path("out/1-0.png").unlink()
    assert run("remove", "in/0.png", "in/1.png", *flags)[1].split()[:2] == ["out/1-0.png", "out/1-1.png"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["recolor", "in", *RECOLOR, "-o", "a.png"], "go to a folder: --output-dir DIR"),
        (["recolor", "in/0.png", "in/1.png", *RECOLOR, "-o", "a.png"], "go to a folder: --output-dir DIR"),
        (["recolor", "in", *RECOLOR, "-o", "a.png", "--output-dir", "out"], "not allowed with argument"),
        (["recolor", "in", *RECOLOR], "one of the arguments -o/--output --output-dir is required"),
        (["recolor", "in", *RECOLOR, "--output-dir", "in"], "results would be worked on in turn. Name another folder"),
        (["recolor", "in/0.png", *RECOLOR, "--output-dir", "in"], "is an input of the same run"),
        (["recolor", "in", "more/0.png", *RECOLOR, "--output-dir", "out"], "would both become"),
        (["recolor", "empty", *RECOLOR, "--output-dir", "out"], "no picture in the folder 'empty'. Expected are"),
        (["recolor", "in", *RECOLOR, "--output-dir", "mask.png"], "Nothing can be written"),
        (["remove", "in", "--mask", "black.png", "--output-dir", "out"], "all black"),
    ],
)
def test_what_no_folder_can_be_is_refused_before_anything_is_computed(run, flags, message):
    draw(Path("more/0.png"), 7)
    Path("empty").mkdir()
    PIL.Image.new("L", (48, 40)).save("black.png")
    before = names(".")
    status, out, err = run(*flags)
    assert status == 2 and message in err and out == ""
    assert set(names(".")) - set(before) <= {"out"} and (not Path("out").exists() or not names("out"))


def test_a_killed_run_goes_on_and_no_file_is_torn(folder, model):
    """Killed as soon as the first file appears, or its temporary name."""
    for index in range(4):
        draw(Path("many", f"{index}.png"), index, 640, 480)
    command = [sys.executable, "-m", "mg_diffusion.cli", "recolor", "many", *RECOLOR, "--output-dir", "out"]
    seen: dict[str, int] = {}
    for turn in range(2):
        process = subprocess.Popen([*command, "--model", str(model)], stderr=subprocess.DEVNULL)
        while process.poll() is None:
            there = set(names("out")) if Path("out").exists() else set()
            if turn == 0 and there:
                process.send_signal(signal.SIGKILL)
                process.wait()
            time.sleep(0.01)
        for path in Path("out").glob("[!.]*.png"):
            PIL.Image.open(path).load()
            made = path.stat().st_mtime_ns
            assert seen.setdefault(path.name, made) == made  # made once
        assert process.returncode == (0 if turn else -signal.SIGKILL)
    assert names("out") == [f"{index}.png" for index in range(4)]


def test_two_processes_share_a_folder(folder, model):
    Path("in/0b.png").write_text("no picture")
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command = [sys.executable, *launch, "-m", "mg_diffusion.cli", "recolor", "in", *RECOLOR, "--output-dir", "out"]
    done = subprocess.run([*command, "--model", str(model)], capture_output=True, text=True)
    assert names("out") == ["0.png", "1.png", "two.png"], done.stderr
    assert done.returncode == 1 and "error: in/0b.png" in done.stderr
    assert "2 made, 0 already there, 0 failed" in done.stderr and "1 made, 0 already there, 1 failed" in done.stderr


def test_what_a_killed_run_left_is_swept(folder):
    jobs = plan(["in"], "out")
    Path("out/.0.png.abc.part").write_text("half")
    Path("out/.other.png.abc.part").write_text("of another run")
    assert work_through(jobs, lambda job: job.targets[0].write_text("done")) == 0
    assert names("out") == [".other.png.abc.part", "0.png", "1.png", "two.png"]


def test_an_interrupt_stops_all(folder):
    def stop(job):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work_through(plan(["in"], "out"), stop)


# -- files ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("flags", "output"),
    [
        (["recolor", "in/0.png", *RECOLOR], "out.png"),
        (["generate", "--steps", "1"], "out.png"),
        (["edit", "in/0.png", "--mask", "mask.png", "--steps", "1"], "out.png"),
        (["variation", "in/0.png", "--steps", "1"], "out.webp"),
        (["encode", "in/0.png", "-g", "color"], "out.safetensors"),
    ],
)
def test_a_file_that_is_there_is_overwritten_only_by_force(run, flags, output):
    Path(output).write_text("kept")
    status, out, err = run(*flags, "-o", output)
    assert status == 2 and "already. Choose another name, or overwrite it by --force" in err and out == ""
    assert Path(output).read_text() == "kept"
    assert run(*flags, "-o", output, "--force")[0] == 0
    assert Path(output).read_bytes() != b"kept"


def test_what_is_written_beside_is_not_overwritten_either(run):
    Path("out.attribution.png").write_text("kept")
    flags = ["generate", "--color", "#ff8800", "--steps", "1", "--attribution", "-o", "out.png"]
    status, _, err = run(*flags)
    assert status == 2 and "out.attribution.png" in err and not Path("out.png").exists()
    assert run("generate", "--steps", "1", "--num-images", "2", "-o", "out.png")[0] == 0
    Path("out-0.png").unlink()
    assert "out-1.png" in run("generate", "--steps", "1", "--num-images", "2", "-o", "out.png")[2]
    assert not Path("out-0.png").exists()


@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "TIFF", "jpg", "jpeg"])
def test_the_format_is_that_of_the_suffix(run, suffix):
    output = f"out.{suffix}"
    status, out, _ = run("recolor", "in/0.png", *RECOLOR, "--mask", "mask.png", "-o", output)
    with PIL.Image.open(output) as made:
        before, after = (np.asarray(one).astype(int) for one in (PIL.Image.open("in/0.png"), made))
        kind = made.format
    outside = np.asarray(PIL.Image.open("mask.png")) == 0
    assert status == 0 and kind == {"png": "PNG", "webp": "WEBP", "jpg": "JPEG", "jpeg": "JPEG"}.get(suffix, "TIFF")
    assert read_recipe(output)["command"] == "recolor"
    assert np.array_equal(before[outside], after[outside]) == (kind != "JPEG")
    assert ("JPEG changes every pixel" in out) == (kind == "JPEG")


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_a_cut_out_comes_back_as_one(run, suffix):
    image = PIL.Image.open("in/0.png").convert("RGBA")
    alpha = np.zeros((40, 48), np.uint8)
    alpha[5:30, 8:40], alpha[30, 8:40] = 255, 90
    image.putalpha(PIL.Image.fromarray(alpha))
    image.save("cut.png")
    assert run("recolor", "cut.png", *RECOLOR, "-o", f"out.{suffix}")[0] == 0
    made, before = np.asarray(PIL.Image.open(f"out.{suffix}")), np.asarray(image)
    assert np.array_equal(made[..., 3], alpha) and np.array_equal(made[alpha == 0], before[alpha == 0])
    assert (made[alpha > 0] != before[alpha > 0]).any(1).mean() > 0.9
    status, _, err = run("recolor", "cut.png", *RECOLOR, "-o", "out.jpg")
    assert status == 2 and "JPEG has no transparency (the mode is RGBA). Write a .png file" in err
    assert not Path("out.jpg").exists()
    assert run("variation", "cut.png", "--steps", "1", "-o", "out.jpg")[0] == 0  # is opaque


def test_16_bits_come_back_as_they_were(run):
    deep = np.random.default_rng(0).integers(0, 65536, (40, 48), np.uint16)
    PIL.Image.fromarray(deep).save("deep.png")
    outside = np.asarray(PIL.Image.open("mask.png")) == 0
    for output in ("out.png", "out.tif"):
        status, out, _ = run("retexture", "deep.png", "--texture", "in/0.png", "--mask", "mask.png", "-o", output)
        made = np.asarray(PIL.Image.open(output))
        assert status == 0 and "differ: 0" in out and made.dtype == np.uint16
        assert np.array_equal(made[outside], deep[outside]) and not np.array_equal(made, deep)
    status, _, err = run("retexture", "deep.png", "--texture", "in/0.png", "-o", "out.webp")
    assert status == 2 and "WEBP has no 16 bits" in err
    status, _, err = run("recolor", "deep.png", *RECOLOR, "-o", "colors.png")
    assert status == 2 and "makes colors" in err


@pytest.mark.parametrize("kind", ["RGBA", "I;16", "L of 0 and 1", "LA"])
def test_masks_of_any_form(run, kind):
    mask = PIL.Image.open("mask.png")
    forms = {
        "RGBA": PIL.Image.merge("RGBA", [PIL.Image.new("L", mask.size)] * 3 + [mask]),
        "LA": PIL.Image.merge("LA", [PIL.Image.new("L", mask.size, 9), mask]),
        "I;16": PIL.Image.fromarray(np.asarray(mask).astype(np.uint16) * 257),
        "L of 0 and 1": PIL.Image.fromarray(np.asarray(mask) // 255),
    }
    forms[kind].save("form.png")
    for name in ("mask", "form"):
        assert "differ: 0" in run("recolor", "in/0.png", *RECOLOR, "--mask", f"{name}.png", "-o", f"{name}-out.png")[1]
    assert np.array_equal(*(np.asarray(PIL.Image.open(f"{name}-out.png")) for name in ("mask", "form")))


def test_a_size_is_that_of_what_octaves_paint(folder, capsys):
    """By the embedded model, which has octaves; what is around the mask of a reshaped picture keeps its own size."""
    draw(Path("wide.png"), 3, 96, 64)
    flags = ["--steps", "1", "--detail-steps", "1", "--size", "96"]
    assert main(["variation", "wide.png", *flags, "-o", "varied.png"]) == 0
    width, height = PIL.Image.open("varied.png").size
    assert abs(width * height - 96**2) < 0.2 * 96**2 and 1.3 < width / height < 1.7
    PIL.Image.open("mask.png").resize((96, 64), PIL.Image.Resampling.NEAREST).save("wide-mask.png")
    flags += ["--mask", "wide-mask.png", "--color", "#cc2222"]
    assert main(["reshape", "wide.png", *flags, "-o", "reshaped.png"]) == 0
    assert "differ: 0" in capsys.readouterr().out and PIL.Image.open("reshaped.png").size == (96, 64)
    recipe = read_recipe("reshaped.png")
    assert recipe["num_detail_steps"] == 1 and recipe["size"] == 96


def test_one_number_is_an_area_in_an_aspect_and_two_are_a_size(run):
    draw(Path("wide.png"), 3, 96, 48)
    sizes = {}
    for command, *flags in (["generate", "--shape", "wide.png"], ["variation", "wide.png"]):
        for size in ("64", "48x48"):
            assert run(command, *flags, "--steps", "1", "--size", size, "--force", "-o", "out.png")[0] == 0
            sizes[command, size] = PIL.Image.open("out.png").size
            assert run("recipe", "out.png", "--force", "-o", "again.png")[0] == 0
            assert PIL.Image.open("again.png").size == sizes[command, size]
    assert sizes == {
        (command, size): wanted
        for command in ("generate", "variation")
        for size, wanted in (("64", (90, 46)), ("48x48", (48, 48)))
    }
    assert run("generate", "--color", "#cc2222", "--steps", "1", "--size", "64", "--force", "-o", "out.png")[0] == 0
    assert PIL.Image.open("out.png").size == (64, 64)


@pytest.mark.parametrize("command", [["generate"], ["variation", "in/0.png"], ["compose", "--shape", "in/0.png"]])
def test_a_size_of_next_to_nothing_is_refused(folder, capsys, command):
    assert main([*command, "--size", "1", "-o", "out.png"]) == 2
    assert "at least" in capsys.readouterr().err and not Path("out.png").exists()


# -- a folder in the place of a reference ---------------------------------------------------------------------------------
FEW = ["--steps", "1", "--color", "#0a9396,#e9d8a6"]


def test_each_picture_of_a_folder_takes_the_place_of_a_reference(run):
    Path("in/0b.png").write_bytes(Path("in/0.png").read_bytes()[:300])
    status, out, err = run("generate", "--shape", "in,weight=2", *FEW, "--output-dir", "out")
    assert status == 1 and out.split() == ["out/0.png", "out/1.png", "out/two.png"] and "error: in/0b.png: " in err
    assert "3 made, 0 already there, 1 failed" in err and "Traceback" not in err
    assert run("generate", "--shape", "in/1.png,weight=2", *FEW, "-o", "alone.png")[0] == 0
    assert Path("alone.png").read_bytes() == Path("out/1.png").read_bytes()  # recipe included
    kept = Path("out/0.png").stat().st_mtime_ns
    Path("in/0b.png").unlink()
    Path("out/1.png").unlink()
    status, out, err = run("generate", "--shape", "in,weight=2", *FEW, "--output-dir", "out")
    assert status == 0 and out.split() == ["out/1.png"] and "1 made, 2 already there" in err
    assert Path("out/0.png").stat().st_mtime_ns == kept


def test_a_folder_is_composed_with(folder, capsys):
    flags = ["--texture", "in/0.png", "--texture", "in,scale=2", "--color", "#0a9396", "--size", "64x64"]
    assert main(["compose", *flags, "--num-images", "2", "--output-dir", "out"]) == 0
    assert names("out") == [f"{name}-{index}.png" for name in ("0", "1", "two") for index in (0, 1)]
    first, second = read_recipe("out/two-1.png")["references"]["texture"]
    assert (first["file"], second["file"], second["scale"]) == ("in/0.png", "in/two.jpg", 2)


def test_a_name_that_looks_like_an_option_is_a_name(folder, capsys):
    draw(Path("odd/a,weight=x.png"), 1)
    assert (
        main(["compose", "--shape", "odd,weight=2", "--color", "#0a9396", "--size", "64", "--output-dir", "out"]) == 0
    )
    assert names("out") == ["a,weight=x.png"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--shape", "in", "-o", "a.png"],
            "--shape 'in' is a folder, of which each picture makes one: --output-dir DIR",
        ),
        (["--shape", "in", "--texture", "in", "--output-dir", "out"], "--texture 'in' and --shape 'in' are"),
        (["--shape", "in", "--negative-color", "in", "--output-dir", "out"], "--negative-color 'in' are"),
        (["--shape", "in/0.png", "--output-dir", "out"], "no reference names one. Give -o FILE.png"),
        (["--shape", "in", "--color", "no.png", "--output-dir", "out"], "There is no reference picture at 'no.png'"),
        (["--shape", "in", "--output-dir", "in"], "results would be worked on in turn"),
        (["--shape", "in", "--color", "out/0.png", "--output-dir", "out"], "is an input of the same run"),
        (["--shape", "in"], "one of the arguments -o/--output --output-dir is required"),
    ],
)
def test_what_no_folder_of_references_can_be_is_refused(run, flags, message):
    draw(Path("out/0.png"), 7)
    before = names(".")
    status, out, err = run("generate", "--steps", "1", *flags)
    assert status == 2 and message in err and out == ""
    assert names(".") == before and names("out") == ["0.png"]


def test_a_killed_folder_of_references_goes_on(folder, model):
    """Killed when the first file is there."""
    command = [sys.executable, "-m", "mg_diffusion.cli", "generate", "--shape", "in", *FEW, "--model", str(model)]
    for turn in range(2):
        process = subprocess.Popen([*command, "--output-dir", "out"], stderr=subprocess.DEVNULL)
        while process.poll() is None:
            if turn == 0 and Path("out").exists() and names("out"):
                process.send_signal(signal.SIGKILL)
                process.wait()
                made = {path.name: path.stat().st_mtime_ns for path in Path("out").glob("[!.]*.png")}
            time.sleep(0.01)
        for path in Path("out").glob("[!.]*.png"):
            PIL.Image.open(path).load()
    assert process.returncode == 0 and names("out") == ["0.png", "1.png", "two.png"]
    assert all(Path("out", name).stat().st_mtime_ns == when for name, when in made.items())


# -- what stands in the place of a result, and what is read of a folder ----------------------------------------------------
@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("folder", "is a folder, or no file. Rename it"),
        ("empty", "There is an empty file at 'out/1.png'"),
        ("link", "There is a link that leads nowhere at 'out/1.png'"),
    ],
)
def test_what_is_no_result_is_not_taken_for_one(run, folder, place, message):
    out = Path("out/1.png")
    out.mkdir(parents=True) if place == "folder" else out.parent.mkdir()
    if place == "empty":
        out.touch()
    if place == "link":
        out.symlink_to(folder / "elsewhere.png")
    for command in (["recolor", "in", *RECOLOR], ["generate", "--shape", "in", *FEW]):
        status, printed, err = run(*command, "--output-dir", "out")
        assert status == 2 and message in err and printed == "" and names("out") == ["1.png"]
        assert not Path("elsewhere.png").exists()
    status, printed, err = run("recolor", "in", *RECOLOR, "--output-dir", "out", "--force")
    assert status == (
        2 if place == "folder" else 0
    )  # as the message says; a folder is told before anything is computed
    assert names("out") == (["1.png"] if place == "folder" else ["0.png", "1.png", "two.png"])
    if place == "empty":
        out.unlink()
        assert run("recolor", "in", *RECOLOR, "--output-dir", "out")[0] == 0 and out.stat().st_size


def test_gifs_of_a_folder_are_read_and_other_pictures_told(run):
    PIL.Image.open("in/0.png").save("in/moving.gif")
    PIL.Image.open("in/0.png").save("in/old.ppm")
    status, _, err = run("recolor", "in", *RECOLOR, "--output-dir", "out")
    assert status == 0 and "1 pictures in 'in' are left out, such as 'old.ppm'" in err and "notes.txt" not in err
    assert "moving.png" in names("out") and "old.png" not in names("out")
    assert run("recolor", "in/old.ppm", *RECOLOR, "--output-dir", "out")[0] == 0 and "old.png" in names("out")


def test_pictures_of_phones_in_a_folder(run, monkeypatch):
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(PIL.Image.open("in/0.png")).save("in/phone.HEIC")
    find = importlib.util.find_spec
    with monkeypatch.context() as without:
        without.setattr(importlib.util, "find_spec", lambda name, *more: None if "heif" in name else find(name, *more))
        status, _, err = run("recolor", "in", *RECOLOR, "--output-dir", "out")
    assert status == 0 and "such as 'phone.HEIC'" in err and "pip install pillow-heif" in err
    status, _, err = run("recolor", "in", *RECOLOR, "--output-dir", "out")
    assert status == 0 and "left out" not in err and "phone.png" in names("out")


def test_pictures_that_differ_by_their_suffixes_keep_them(run):
    for name in ("photo.jpg", "photo.webp"):
        PIL.Image.open("in/0.png").save(Path("in", name))
    status, _, err = run("recolor", "in", *RECOLOR, "--output-dir", "out")
    assert status == 0 and err.count("their results keep") == 1 and "2 pictures have the names of others" in err
    assert names("out") == ["0.png", "1.png", "photo.jpg.png", "photo.webp.png", "two.png"]
    assert "0 made, 5 already there" in run("recolor", "in", *RECOLOR, "--output-dir", "out")[2]
    flags = ["--mask", "mask.png", "--num-images", "2", "--output-dir", "several"]
    assert run("remove", "in/photo.jpg", "in/photo.webp", *flags)[0] == 0
    assert names("several") == [f"photo.{kind}-{index}.png" for kind in ("jpg", "webp") for index in (0, 1)]


def test_a_name_as_long_as_names_may_be(run):
    long = "n" * 251
    assert run("recolor", "in/0.png", *RECOLOR, "-o", f"{long}.png")[0] == 0
    Path("long").mkdir()
    Path("in/0.png").rename(f"long/{long}.png")
    assert run("recolor", "long", *RECOLOR, "--output-dir", "out")[0] == 0 and names("out") == [f"{long}.png"]
    assert run("encode", "in/1.png", "-g", "color", "-o", f"{long[:243]}.safetensors")[0] == 0
    Path("out", f"{long}.png").unlink()
    (job,) = plan(["long"], "out")
    left = Path("out", f".{part_name(job.targets[0])}.abc.part")
    left.write_text("half")
    assert work_through([job], lambda job: job.targets[0].write_text("done")) == 0 and not left.exists()
