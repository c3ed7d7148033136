"""Reading an imagefolder: captions, orientation, order, and what is refused."""

import json
from argparse import Namespace

import numpy as np
import PIL.Image
import pytest
import torch

from mg_diffusion.training.pictures import load_pictures, load_splits


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
    assert sorted(load_pictures(data, "train", 32, caption_column="words").captions) == ["a", "b"]


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


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "CMYK"])
def test_other_modes_become_rgb(tmp_path, mode):
    (tmp_path / "train").mkdir()
    suffix = "jpg" if mode == "CMYK" else "png"
    PIL.Image.new("RGB", (32, 32), (90, 90, 90)).convert(mode).save(tmp_path / "train" / f"0.{suffix}")
    whole = load_pictures(str(tmp_path), "train", 32).whole
    assert whole.shape == (1, 3, 32, 32) and (whole.float() - 90).abs().max() < 4


@pytest.mark.parametrize(
    "options, message",
    [
        ({"split": "validation"}, "No split 'validation' of pictures can be read"),
        ({"data_dir": "nowhere"}, "No split 'train' of pictures can be read from 'nowhere'"),
        ({"image_column": "photo"}, r"no 'photo' \(--image_column\)"),
        ({"caption_column": "words"}, r"no 'words' \(--caption_column\)"),
    ],
)
def test_what_is_missing_is_named(tmp_path, options, message):
    arguments = {"data_dir": write(tmp_path, count=2), "split": "train", "size": 32, **options}
    with pytest.raises(ValueError, match=message):
        load_pictures(**arguments)


@pytest.mark.parametrize("damage", ["missing", "no picture", "cut off"])
def test_a_missing_or_damaged_file_is_refused(tmp_path, damage):
    data = write(tmp_path, count=2, captions=[{"text": "whole"}, {"text": "damaged"}])
    path = tmp_path / "train" / "1.png"
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(b"no picture" if damage == "no picture" else content[:60])
    with pytest.raises(ValueError, match="A picture of split 'train' in .* cannot be read"):
        load_pictures(data, "train", 32)


def splits_of(data, caption_column="text"):
    flags = {"max_train_samples": None, "num_validation_images": 8, "resolution": 32, "seed": 0}
    return load_splits(
        Namespace(train_data_dir=data, image_column="image", caption_column=caption_column, **flags), held_out_seed=1
    )


def test_the_validation_split_is_read_where_there_is_one(tmp_path):
    pictures, held_out = splits_of(write(tmp_path, count=3))
    assert len(pictures) == 3 and held_out is None
    pictures, held_out = splits_of(write(tmp_path, count=2, split="val"))
    assert (len(pictures), len(held_out)) == (3, 2)


def test_a_damaged_validation_picture_is_not_a_missing_split(tmp_path):
    write(tmp_path, count=2)
    data = write(tmp_path, count=2, split="val", captions=[{"text": "whole"}, {"text": "damaged"}])
    (tmp_path / "val" / "1.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="A picture of split 'validation' in .* cannot be read"):
        splits_of(data)


def test_splits_with_other_columns_are_not_a_missing_split(tmp_path):
    write(tmp_path, count=1, captions=[{"words": "a"}])
    data = write(tmp_path, count=1, split="val", captions=[{"text": "a"}])
    with pytest.raises(ValueError, match="have different features"):
        splits_of(data, caption_column="words")
