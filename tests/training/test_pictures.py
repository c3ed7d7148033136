"""Reading an imagefolder: captions, orientation, order, and what is refused."""

import json

import numpy as np
import PIL.Image
import pytest
import torch

from mg_diffusion.training import __main__ as command
from mg_diffusion.training.arguments import parse_args
from mg_diffusion.training.pictures import Limits, load_pictures, load_splits
from mg_diffusion.training.settings import Data
from mg_diffusion.training.sources import Source

from .garbage import noise, write_garbage, write_good


def write(folder, count=6, split="train", captions=None, width=40, height=32):
    """Pictures of one gray level each, so that they can be told apart."""
    (folder / split).mkdir(parents=True)
    for index in range(count):
        PIL.Image.new("RGB", (width, height), (30 * index,) * 3).save(folder / split / f"{index}.png")
    if captions:
        rows = [{"file_name": f"{index}.png", **caption} for index, caption in enumerate(captions)]
        (folder / split / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def levels(pictures):
    return (pictures.whole[:, 0, 0, 0] // 30).tolist()


def test_captions_stay_with_their_pictures(tmp_path):
    data = write(tmp_path, captions=[{"text": f"gray {index}"} for index in range(5)] + [{"text": None}])
    pictures = load_pictures(data, "train", 32)
    assert pictures.captions == [f"gray {level}" if level < 5 else "" for level in levels(pictures)]
    assert pictures.whole.shape == pictures.crop.shape == (6, 3, 32, 32) and pictures.whole.dtype == torch.uint8
    assert sorted(levels(pictures)) == list(range(6)) and len(pictures) == 6
    assert torch.equal(pictures.whole[:, :, 0, 0], pictures.crop[:, :, 0, 0])


def test_without_metadata_captions_are_empty_and_another_column_can_be_named(tmp_path):
    assert load_pictures(write(tmp_path / "bare"), "train", 32).captions == [""] * 6
    data = write(tmp_path / "named", count=2, captions=[{"words": "a"}, {"words": "b"}])
    assert load_pictures(data, "train", 32).captions == ["", ""]
    assert sorted(load_pictures(Source(data, caption_column="words"), "train", 32).captions) == ["a", "b"]


def test_order_is_a_function_of_the_seed_and_a_part_is_its_beginning(tmp_path):
    data = write(tmp_path)
    one, again, other = (load_pictures(data, "train", 32, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.whole, again.whole) and torch.equal(one.crop, again.crop)
    assert levels(one) != levels(other)
    assert levels(load_pictures(data, "train", 32, seed=1, max_samples=2)) == levels(one)[:2]
    assert len(load_pictures(data, "train", 32, max_samples=99)) == 6


@pytest.mark.parametrize(
    "orientation, corner", [(1, "top left"), (3, "bottom right"), (6, "top right"), (8, "bottom left")]
)
def test_exif_orientation_is_applied(tmp_path, orientation, corner):
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:32, :32] = 255
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "train").mkdir()
    PIL.Image.fromarray(pixels).save(tmp_path / "train" / "0.jpg", exif=exif, quality=95)
    picture = load_pictures(str(tmp_path), "train", 32).whole[0, 0].float()
    quarters = {"top left": picture[:16, :16], "top right": picture[:16, 16:]}
    quarters |= {"bottom left": picture[16:, :16], "bottom right": picture[16:, 16:]}
    assert max(quarters, key=lambda name: quarters[name].mean()) == corner


@pytest.mark.parametrize("width, height", [(90, 30), (30, 90)])
def test_the_centered_square_is_taken(tmp_path, width, height):
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[(height - 30) // 2 : (height + 30) // 2, (width - 30) // 2 : (width + 30) // 2] = 200
    (tmp_path / "train").mkdir()
    PIL.Image.fromarray(pixels).save(tmp_path / "train" / "0.png")
    assert (load_pictures(str(tmp_path), "train", 32).whole == 200).all()


@pytest.mark.parametrize("split, message", [("train", "No split 'train' of pictures can be read from 'nowhere'")])
def test_a_folder_that_is_not_there_is_named(split, message):
    with pytest.raises(ValueError, match=message):
        load_pictures("nowhere", split, 32)


def test_a_split_that_is_not_there_is_named_with_those_that_are(tmp_path):
    with pytest.raises(ValueError, match="No split 'validation' of pictures .*: it has 'train'"):
        load_pictures(write(tmp_path), "validation", 32)


def with_bad_neighbors(folder):
    (folder / "train" / "0-first.png").write_bytes(b"no picture")
    (folder / "train" / "3-middle.png").write_bytes(b"no picture")
    return Limits(32, max_skipped_share=0.5)


def test_a_picture_and_its_crop_do_not_depend_on_what_is_skipped_beside_it(tmp_path):
    data = write(tmp_path, count=0)
    write_good(tmp_path / "train", 6)
    before = load_pictures(data, "train", 32, seed=3)
    after = load_pictures(data, "train", with_bad_neighbors(tmp_path), seed=3)
    rows = {picture.numpy().tobytes(): crop for picture, crop in zip(before.whole, before.crop, strict=True)}
    assert len(rows) == len(after) == 6
    for picture, crop in zip(after.whole, after.crop, strict=True):
        assert torch.equal(rows[picture.numpy().tobytes()], crop)
    other = load_pictures(data, "train", with_bad_neighbors(tmp_path), seed=4)
    assert not any(
        torch.equal(rows[p.numpy().tobytes()], crop) for p, crop in zip(other.whole, other.crop, strict=True)
    )


def test_a_part_at_random_has_so_many_pictures_whatever_is_skipped(tmp_path):
    data = write(tmp_path)
    limits = with_bad_neighbors(tmp_path)
    for seed in range(4):
        assert len(load_pictures(data, "train", limits, max_samples=5, seed=seed)) == 5


def test_of_a_part_at_random_the_share_is_that_of_what_was_read(tmp_path):
    """One bad of ten rows read, of a thousand; and one stray beside them."""
    data = write(tmp_path, count=0)
    write_good(tmp_path / "train", 60)
    (tmp_path / "train" / "notes.txt").write_text("one stray")
    assert len(load_pictures(data, "train", Limits(32, max_skipped_share=0.017), max_samples=5)) == 5  # 1 of 61
    with pytest.raises(ValueError, match="a share of 0.02 where --max_skipped_share allows 0.015"):
        load_pictures(data, "train", Limits(32, max_skipped_share=0.015), max_samples=5)
    for seed in range(30):
        (tmp_path / "train" / f"good-{seed:03d}.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"a share of 0\.[3-7]"):
        load_pictures(data, "train", Limits(32), max_samples=10)


@pytest.fixture(scope="module")
def garbage(tmp_path_factory):
    """200 garbage files in a folder of 300, and the reasons to expect."""
    folder = tmp_path_factory.mktemp("garbage")
    (folder / "train").mkdir()
    reasons = write_garbage(folder / "train")
    write_good(folder / "train", 100)
    assert len(reasons) == 200 and len(list((folder / "train").iterdir())) == 300
    return folder, {f"train/{name}": reason for name, reason in reasons.items()}


def report_of(run):
    return [json.loads(line) for line in (run / "skipped.jsonl").read_text().splitlines()]


def test_200_garbage_files_of_300_stop_the_run_with_all_of_them_named(garbage, flags, tmp_path):
    folder, reasons = garbage
    with pytest.raises(SystemExit) as ended:
        command.main(flags("vae", tmp_path, train_data_dir=folder))
    message = str(ended.value)
    assert message.startswith(f"error: 200 files of split 'train' of {str(folder)!r} are skipped (")
    assert "a share of 0.67 where --max_skipped_share allows 0.1: 'train/" in message
    assert f"named in {str(tmp_path / 'skipped.jsonl')!r}" in message
    for reason in set(reasons.values()):
        assert f"{list(reasons.values()).count(reason)} {reason}" in message
    assert {line["name"]: line["reason"] for line in report_of(tmp_path)} == reasons
    assert {line["split"] for line in report_of(tmp_path)} == {"train"}
    assert {path.name for path in tmp_path.iterdir()} == {"skipped.jsonl", "training_config.json"}


def test_if_allowed_the_run_trains_on_exactly_the_100_good_ones(garbage, flags, tmp_path, capsys):
    folder, reasons = garbage
    (tmp_path / "good" / "train").mkdir(parents=True)
    write_good(tmp_path / "good" / "train", 100)
    good = load_pictures(str(tmp_path / "good"), "train", 32)
    options = {"train_data_dir": folder, "max_skipped_share": 0.7, "max_train_steps": 1, "checkpointing_steps": 1}
    arguments = flags("vae", tmp_path / "run", **options)
    pictures, held_out = load_splits(Data.of(parse_args(arguments)))
    assert held_out is None
    assert {one.numpy().tobytes() for one in pictures.whole} == {one.numpy().tobytes() for one in good.whole}
    assert len(pictures) == 100
    command.main([*arguments, "--overwrite_output_dir"])
    assert (tmp_path / "run" / "weights" / "config.json").is_file()
    assert {line["name"]: line["reason"] for line in report_of(tmp_path / "run")} == reasons
    assert "100 pictures, 200 files skipped (" in capsys.readouterr().out


def test_what_belongs_to_any_folder_is_not_counted(tmp_path, capsys):
    data = write(tmp_path, captions=[{"text": ""}] * 6)
    for name in (".hidden.jpg", "README.md", "LICENSE", "CREDITS.txt", "Notice"):
        (tmp_path / "train" / name).write_text("no picture")
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / ".cache" / "x.jpg").write_text("no picture")
    (tmp_path / "notes.txt").write_text("outside of the split")
    limits = Limits(32, max_skipped_share=0, report=tmp_path / "skipped.jsonl")
    assert len(load_pictures(data, "train", limits)) == 6
    assert not (tmp_path / "skipped.jsonl").exists() and "skipped" not in capsys.readouterr().out


def test_the_report_holds_what_the_last_reading_skipped(tmp_path):
    data = write(tmp_path)
    limits = Limits(32, max_skipped_share=1, report=tmp_path / "run" / "skipped.jsonl")
    limits.report.parent.mkdir()
    limits.report.write_text(json.dumps({"split": "validation", "name": "x", "reason": "y", "detail": ""}) + "\n")
    (tmp_path / "train" / "bad.png").write_bytes(b"")
    for _ in range(2):
        load_pictures(data, "train", limits)
        assert [line["name"] for line in report_of(limits.report.parent)] == ["x", "train/bad.png"]
    (tmp_path / "train" / "bad.png").unlink()
    load_pictures(data, "train", limits)
    assert [line["name"] for line in report_of(limits.report.parent)] == ["x"]


def test_nothing_left_is_an_error_whatever_is_allowed(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "0.png").write_bytes(b"")
    with pytest.raises(ValueError, match="There is no picture in split 'train' of .*: 1 empty."):
        load_pictures(str(tmp_path), "train", Limits(32, max_skipped_share=1))
    (tmp_path / "train" / "0.png").rename(tmp_path / "train" / "0.txt")
    with pytest.raises(
        ValueError, match="Split 'train' of .* cannot be read: none of its files is a picture or shard"
    ):
        load_pictures(str(tmp_path), "train", Limits(32, max_skipped_share=1))


@pytest.mark.parametrize(
    "size, least, is_read", [(64, None, False), (62, None, True), (64, 31, True), (32, 32, False)]
)
def test_half_of_the_resolution_is_enough_unless_told_otherwise(tmp_path, size, least, is_read):
    (tmp_path / "train").mkdir()
    noise(0, side=31).save(tmp_path / "train" / "0.png")
    if is_read:
        assert load_pictures(str(tmp_path), "train", Limits(size, min_side=least)).whole.shape[2] == size
    else:
        with pytest.raises(ValueError, match="1 too small"):
            load_pictures(str(tmp_path), "train", Limits(size, min_side=least))


@pytest.mark.parametrize("damage", ["missing", "no picture", "cut off", "a folder"])
def test_a_row_of_the_metadata_without_its_picture_is_skipped(tmp_path, damage):
    data = write(tmp_path, count=2, captions=[{"text": "whole"}, {"text": "damaged"}])
    path = tmp_path / "train" / "1.png"
    content = path.read_bytes()
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes(b"no picture" if damage == "no picture" else content[:60])
    with pytest.raises(ValueError, match="'train/1.png'.* Mend or remove them, or allow a larger share"):
        load_pictures(data, "train", 32)
    limits = Limits(32, max_skipped_share=0.9, report=tmp_path / "skipped.jsonl")
    assert load_pictures(data, "train", limits).captions == ["whole"]
    reason = {"no picture": "not an image", "cut off": "damaged"}.get(damage, "unreadable")
    assert report_of(tmp_path)[-1]["reason"] == reason


def test_a_picture_that_no_row_names_is_counted(tmp_path):
    data = write(tmp_path, count=3, captions=[{"text": "a"}, {"text": "b", "mask_file_name": "2.png"}])
    assert len(load_pictures(data, "train", Limits(32, max_skipped_share=0))) == 2  # the third is a mask
    noise(0).save(tmp_path / "train" / "9.png")
    with pytest.raises(ValueError, match="1 not in the metadata"):
        load_pictures(data, "train", 32)


def splits_of(data, output, *switches, **flags):
    flags = {"train_data_dir": data, "output_dir": output, "resolution": 32, "num_validation_images": 8, **flags}
    pairs = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    return load_splits(Data.of(parse_args(["base", *pairs, *switches])), held_out_seed=1)


def test_the_validation_split_is_read_where_there_is_one(tmp_path):
    pictures, held_out = splits_of(write(tmp_path / "data", count=3), tmp_path)
    assert len(pictures) == 3 and held_out is None
    pictures, held_out = splits_of(write(tmp_path / "data", count=2, split="val"), tmp_path)
    assert (len(pictures), len(held_out)) == (3, 2)


def test_a_damaged_validation_picture_is_not_a_missing_split(tmp_path):
    write(tmp_path, count=2)
    data = write(tmp_path, count=2, split="val", captions=[{"text": "whole"}, {"text": "damaged"}])
    (tmp_path / "val" / "1.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="1 files of split 'validation' of .*1 not an image"):
        splits_of(data, tmp_path / "run")


def test_splits_with_other_columns_are_not_a_missing_split(tmp_path):
    write(tmp_path, count=1, captions=[{"words": "a"}])
    data = write(tmp_path, count=1, split="val", captions=[{"text": "a"}])
    with pytest.raises(ValueError, match="have different features"):
        splits_of(data, tmp_path / "run", caption_column="words")
