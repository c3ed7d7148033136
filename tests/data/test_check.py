"""`mg-diffusion data check`, run in this process."""

import json
import os
import sys

import numpy as np
import PIL.Image
import pytest
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from skimage import data

from mg_diffusion.cli import main
from mg_diffusion.data.check import CAPTION_TOKENS, caption_tokens, check_folder
from mg_diffusion.data.faces import FaceDetector
from mg_diffusion.data.pictures import MIN_SIDE, SUFFIXES, why_skipped
from mg_diffusion.decoding import FORMATS
from mg_diffusion.training.pictures import load_pictures


def draw(path, seed: int, size=(48, 40), mode="RGB"):
    """A picture that resembles none of another seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    PIL.Image.fromarray(small).resize(size, PIL.Image.Resampling.BICUBIC).convert(mode).save(path)
    return path


def write_rows(folder, rows):
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    """Two splits without any problem."""
    for split, seeds in (("train", (0, 1, 2)), ("val", (3, 4))):
        for seed in seeds:
            draw(tmp_path / split / f"{seed}.png", seed)
        rows = [{"file_name": f"{seed}.png", "text": f"picture {seed}", "license": "MIT"} for seed in seeds]
        write_rows(tmp_path / split, rows)
    return tmp_path


def test_a_good_folder_is_reported_and_the_status_is_0(folder, tmp_path_factory, capsys):
    output = tmp_path_factory.mktemp("out") / "report.json"
    assert main(["data", "check", str(folder), "--json", str(output)]) == 0
    printed = capsys.readouterr().out
    assert f"train: 3 pictures in {folder / 'train'}" in printed and "no problems found" in printed
    assert "licences: MIT 2; without one: 0" in printed and "modes: RGB 3" in printed
    report = json.loads(output.read_text(encoding="utf-8"))
    train = report["splits"]["train"]
    assert report == check_folder(folder) and report["problems"] == []
    assert (train["pictures"], train["shorter_side"], train["longer_side"]) == (3, [40, 40, 40], [48, 48, 48])
    assert train["aspect"] == [1.2, 1.2, 1.2] and train["faces"] == [] and train["skipped"] == {}
    assert train["captions"] == {"column": "text", "missing": 0, "least_tokens": [4, 4, 4], "too_long": 0}


def test_a_report_is_overwritten_only_by_force(folder, tmp_path_factory, capsys):
    output = tmp_path_factory.mktemp("out") / "report.json"
    output.write_text("mine")
    flags = ["data", "check", str(folder), "--json", str(output), "--no-faces"]
    assert main(flags) == 2 and output.read_text() == "mine"
    assert "There is a file at" in capsys.readouterr().err
    assert main([*flags, "--force"]) == 0 and json.loads(output.read_text(encoding="utf-8"))["problems"] == []


def test_a_flat_folder_is_the_training_split(tmp_path, capsys):
    draw(tmp_path / "a" / "0.png", 0)
    (tmp_path / "README.txt").write_text("belongs to any folder")
    (tmp_path / ".hidden").mkdir()
    draw(tmp_path / ".hidden" / "1.png", 1)
    assert main(["data", "check", str(tmp_path), "--no-faces"]) == 0
    printed = capsys.readouterr().out
    assert "train: 1 pictures" in printed and "other files" not in printed
    assert "captions: 0, without one: 1" in printed and "faces: not looked for (not asked for)" in printed


def test_captions_are_counted_against_the_limit_of_clip(folder):
    long = " ".join(["word"] * CAPTION_TOKENS)
    rows = [{"file_name": "0.png", "text": long}, {"file_name": "1.png", "text": " "}, {"file_name": "2.png"}]
    write_rows(folder / "train", rows)
    captions = check_folder(folder)["splits"]["train"]["captions"]
    tokens = CAPTION_TOKENS + 2
    assert captions == {"column": "text", "missing": 2, "least_tokens": [tokens, tokens, tokens], "too_long": 1}


def test_another_caption_column_and_csv_are_read(folder, capsys):
    (folder / "train" / "metadata.jsonl").unlink()
    (folder / "train" / "metadata.csv").write_text(
        "file_name,words\n0.png,red\n1.png,blue\n2.png,\n", encoding="utf-8"
    )
    main(["data", "check", str(folder), "--caption-column", "words", "--no-faces"])
    assert "captions: 2, without one: 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", ["", "a photo of t-shirt", "1984, über!", "don't, they'll", "a_b -_- 3.5cm", "x" * 30]
)
def test_tokens_are_counted_as_clip_splits_captions(repository, text):
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(repository / "hub_cards" / "mg-bazaar" / "tokenizer")
    pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
    assert caption_tokens(text) == len(pieces) + 2


def test_licences_come_from_the_first_column_that_says_something(folder):
    rows = [{"file_name": "0.png", "licence": "CC0"}, {"file_name": "1.png", "source": "mine"}, {"file_name": "2.png"}]
    write_rows(folder / "train", rows)
    licenses = check_folder(folder)["splits"]["train"]["licenses"]
    assert licenses == {"counts": {"CC0": 1, "mine": 1}, "missing": 1}


def test_modes_are_named(tmp_path):
    for index, (mode, suffix) in enumerate({"RGB": "jpg", "L": "jpg", "RGBA": "png", "P": "png", "LA": "png"}.items()):
        draw(tmp_path / f"{index}.{suffix}", index, mode=mode)
    modes = check_folder(tmp_path)["splits"]["train"]["modes"]
    assert modes == {"alpha": 2, "RGB": 1, "gray": 1, "palette": 1}


def test_a_picture_on_its_side_is_reported_upright(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.new("RGB", (120, 60), "red").save(tmp_path / "0.jpg", exif=exif)
    assert check_folder(tmp_path)["splits"]["train"]["aspect"] == [0.5, 0.5, 0.5]


# -- what training skips ----------------------------------------------------------------------------------------------
def bad_files(folder):
    good = draw(folder / "good.png", 9, (64, 64))
    (folder / "cut.png").write_bytes(good.read_bytes()[:-200])
    (folder / "text.jpg").write_text("no picture")
    draw(folder / "ink.jpg", 8, mode="CMYK")
    draw(folder / "tiny.png", 7, (MIN_SIDE - 1, 40))
    return {
        "cut.png": "damaged: ",
        "text.jpg": "not an image: none of AVIF, ",
        "ink.jpg": "color mode: CMYK, none of ",
        "tiny.png": f"too small: {MIN_SIDE - 1} x 40, the shorter side less than {MIN_SIDE}",
    }


def test_files_that_training_skips_are_named_with_the_reason(tmp_path, capsys):
    expected = bad_files(tmp_path)
    assert main(["data", "check", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "train has 4 files that training skips" in printed
    for name, reason in expected.items():
        assert f"{name}: {reason}" in printed
        assert why_skipped(str(tmp_path / name)).startswith(reason)
    assert why_skipped(str(tmp_path / "good.png")) is None


@pytest.mark.parametrize("others, is_stopped", [(1, False), (2, True)])
def test_files_that_are_no_pictures_are_a_problem_where_training_stops_for_them(tmp_path, capsys, others, is_stopped):
    """As captions in .txt files beside the pictures."""
    for index in range(10):
        draw(tmp_path / "train" / f"{index}.png", index)
    for index in range(others):
        (tmp_path / "train" / f"{index}.txt").write_text("a caption")
    assert main(["data", "check", str(tmp_path), "--no-faces"]) == is_stopped
    printed = capsys.readouterr().out
    assert f"other files, not read: {others}" in printed
    assert ("2 of 12 files of train are no pictures to train on: training stops" in printed) == is_stopped
    if is_stopped:
        with pytest.raises(ValueError, match="2 files of split 'train' .*--max_skipped_share allows 0.1"):
            load_pictures(str(tmp_path), "train", 64)
    else:
        assert len(load_pictures(str(tmp_path), "train", 64)) == 10


def test_files_are_pictures_by_the_names_that_training_goes_by():
    PIL.Image.init()
    read = {name for name in ImageFolder.EXTENSIONS if PIL.Image.EXTENSION.get(name) in FORMATS}
    assert read == set(SUFFIXES)


def test_a_pipe_is_skipped_as_in_training(tmp_path):
    for index in range(12):
        draw(tmp_path / f"{index}.png", index)
    os.mkfifo(tmp_path / "x.png")
    assert check_folder(tmp_path)["splits"]["train"]["skipped"] == {"x.png": "not a file: no regular one"}
    assert len(load_pictures(str(tmp_path), "train", 64)) == 12


def test_what_cannot_be_opened_has_its_reason(tmp_path):
    assert why_skipped(str(tmp_path / "nowhere.png")) == "unreadable: No such file or directory"


# -- duplicates -------------------------------------------------------------------------------------------------------
def test_duplicates_within_a_split_are_told_and_are_no_problem(folder, capsys):
    (folder / "train" / "copy.png").write_bytes((folder / "train" / "0.png").read_bytes())
    with PIL.Image.open(folder / "train" / "1.png") as image:
        image.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "train" / "mirror.png")
    rows = [{"file_name": f"{name}.png"} for name in ("0", "1", "2", "copy", "mirror")]
    write_rows(folder / "train", rows)
    assert main(["data", "check", str(folder), "--no-faces"]) == 0
    printed = capsys.readouterr().out
    assert "byte for byte, within a split: 1\n      train/0.png  train/copy.png" in printed
    assert "nearly the same picture, within a split: 1\n      train/1.png  train/mirror.png" in printed
    assert "mirrored)" in printed


def test_duplicates_across_splits_are_a_problem(folder, capsys):
    (folder / "val" / "3.png").write_bytes((folder / "train" / "0.png").read_bytes())
    with PIL.Image.open(folder / "train" / "1.png") as image:
        image.resize((96, 80)).save(folder / "val" / "4.png")
    assert main(["data", "check", str(folder), "--no-faces"]) == 1
    printed = capsys.readouterr().out
    assert "the same file is in several splits 1 times" in printed
    assert "nearly the same picture is in several splits 1 times: the validation loss would flatter the run" in printed
    assert "across splits: 1\n      train/0.png  val/3.png" in printed


def test_long_lists_are_cut_in_the_text_only(tmp_path, capsys):
    for index in range(8):
        (tmp_path / f"{index}.png").write_text("no picture")
    assert main(["data", "check", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "... and 3 more (--json FILE lists all)" in printed and "train has no picture that can be used" in printed
    assert len(check_folder(tmp_path)["splits"]["train"]["skipped"]) == 8


# -- metadata ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "train/metadata.jsonl cannot be read: "),
        ("[1]", "train/metadata.jsonl cannot be read: line 1 is not an object"),
        ('{"text": "red"}', "train/metadata.jsonl has rows without file_name"),
        ('{"file_name": 5}', "train/metadata.jsonl has rows without file_name"),
        ('{"file_name": "gone.png"}', "the metadata of train names 1 files that are not there, such as"),
        ('{"file_name": "0.png"}', "the metadata of train lacks 2 pictures, such as"),
        (None, "train has no metadata.jsonl and the other split has one: give both or neither"),
    ],
)
def test_metadata_that_does_not_fit_is_a_problem(folder, capsys, text, problem):
    if text is None:
        (folder / "train" / "metadata.jsonl").unlink()
    else:
        (folder / "train" / "metadata.jsonl").write_text(text, encoding="utf-8")
    assert main(["data", "check", str(folder), "--no-faces"]) == 1
    assert problem in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["{tmp}/nosuch"], "There is no folder '{tmp}/nosuch'. Expected is a folder of pictures"),
        (["{tmp}", "--json", "{tmp}/out.txt"], "must be a .json file"),
    ],
)
def test_errors_say_what_to_do(tmp_path, capsys, flags, message):
    assert main(["data", "check", *(flag.format(tmp=tmp_path) for flag in flags)]) == 2
    assert message.format(tmp=tmp_path) in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# -- faces ------------------------------------------------------------------------------------------------------------
def test_a_face_is_found_and_a_cup_is_none(tmp_path, capsys):
    PIL.Image.fromarray(data.astronaut()).save(tmp_path / "astronaut.png")
    PIL.Image.fromarray(data.coffee()).save(tmp_path / "coffee.png")
    assert main(["data", "check", str(tmp_path)]) == 0
    assert "may show a face: 1 (a rough detector: scikit-image" in capsys.readouterr().out
    assert check_folder(tmp_path)["splits"]["train"]["faces"] == ["astronaut.png"]


def test_most_of_a_hundred_faces_are_found_and_few_other_patches(tmp_path):
    import skimage.data

    patches = np.load(skimage.data.__path__[0] + "/lfw_subset.npy")  # 100 faces, then 100 patches without one
    detector, found = FaceDetector(), []
    for patch in patches:
        image = PIL.Image.new("RGB", (128, 128), "gray")
        image.paste(PIL.Image.fromarray((255 * patch).astype(np.uint8)).resize((64, 64)), (32, 32))
        found.append(detector.count(image) > 0)
    assert sum(found[:100]) > 80 and sum(found[100:]) < 5


def test_a_picture_smaller_than_a_face_has_none():
    assert FaceDetector().count(PIL.Image.new("RGB", (16, 300))) == 0


def test_without_a_detector_the_reason_is_printed(tmp_path, monkeypatch, capsys):
    draw(tmp_path / "0.png", 0)
    monkeypatch.setitem(sys.modules, "skimage.feature", None)  # as if it were not installed
    assert main(["data", "check", str(tmp_path)]) == 0
    assert "faces: not looked for (needs scikit-image: pip install 'mg-diffusion[eval]')" in capsys.readouterr().out


def test_a_column_of_captions_that_is_asked_for_must_be_there(folder, capsys):
    assert main(["data", "check", str(folder), "--caption-column", "nope"]) == 1
    assert "train has no column 'nope' (--caption-column)" in capsys.readouterr().out
