"""Where pictures come from: folders, shards and data sets, their columns and splits."""

import io
import json
import tarfile
import zipfile

import numpy as np
import pytest
from datasets import Dataset, Image

from mg_diffusion.metadata import CAPTIONS
from mg_diffusion.training.pictures import Limits, load_pictures, stream_pictures
from mg_diffusion.training.sources import Source

from .garbage import encode, noise, write_good


def write_shard(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def samples(numbers, captions="txt", kind="png"):
    """Members of a shard: pictures of noise, with captions "number <n>"."""
    members = {}
    for number in numbers:
        members[f"{number:04d}.{kind}"] = encode(noise(number), "JPEG" if kind == "jpg" else kind)
        if captions == "txt":
            members[f"{number:04d}.txt"] = f"number {number}".encode()
        elif captions:
            members[f"{number:04d}.json"] = json.dumps({captions: f"number {number}"}).encode()
    return members


def loaders():
    return [
        pytest.param(
            lambda source, split="train", **limits: load_pictures(source, split, Limits(32, **limits)), id="read"
        ),
        pytest.param(
            lambda source, split="train", **limits: stream_pictures(source, split, Limits(32, **limits), 99),
            id="streamed",
        ),
    ]


@pytest.mark.parametrize("load", loaders())
@pytest.mark.parametrize("captions", ["txt", "caption", "text", "prompt"])
def test_shards_are_read_with_their_captions(tmp_path, load, captions):
    write_shard(tmp_path / "train" / "0.tar", samples(range(3), captions))
    write_shard(tmp_path / "train" / "1.tar.gz", samples(range(3, 5), captions))
    write_shard(tmp_path / "val" / "0.tar", samples([7], captions))
    source = Source(str(tmp_path))
    pictures = load(source)
    numbers = [int(caption.removeprefix("number ")) for caption in pictures.captions]
    assert sorted(numbers) == list(range(5))
    for number, whole in zip(numbers, pictures.whole, strict=True):
        expected = np.asarray(noise(number).resize((32, 32), 3)).transpose(2, 0, 1)
        np.testing.assert_array_equal(whole.numpy(), expected)
    assert load(source, "validation").captions == ["number 7"]


@pytest.mark.parametrize("load", loaders())
def test_a_bad_file_of_a_shard_is_skipped_by_name(tmp_path, load):
    members = samples(range(6), kind="jpg")
    members["0004.jpg"] = members["0004.jpg"][:100]
    del members["0005.jpg"]
    write_shard(tmp_path / "train" / "a.tar", members)
    (tmp_path / "train" / "index.idx").write_text("no shard")
    report = tmp_path / "skipped.jsonl"
    pictures = load(Source(str(tmp_path)), max_skipped_share=0.5, report=report)
    assert sorted(pictures.captions) == [f"number {number}" for number in range(4)]
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    found = {line["name"]: line["reason"] for line in lines}
    rows = {name for name, reason in found.items() if reason == "no picture"}
    assert len(rows) == 1 and rows.pop().startswith("train/a.tar/row ")
    assert found.items() >= {"train/index.idx": "not a picture file", "train/a.tar/0004.jpg": "damaged"}.items()


@pytest.mark.parametrize("cut", [0, 15_000, 20_000])
def test_a_shard_that_breaks_off_stops_the_run(tmp_path, cut):
    """Between two members, too, where `tarfile` sees the end of an archive: 20,000."""
    path = tmp_path / "train" / "a.tar"
    write_shard(path, samples(range(6)))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"Shards of .* break off.* get them anew: \['train/a.tar'\]"):
        load_pictures(str(tmp_path), "train", 32)


@pytest.mark.parametrize("load", loaders())
@pytest.mark.parametrize("cut", [15_000, 25_000])
def test_a_compressed_shard_that_breaks_off_stops_the_run(tmp_path, load, cut):
    path = tmp_path / "train" / "a.tar.gz"
    write_shard(path, samples(range(6)))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match="(?s)plit 'train' of .* cannot be read.*unexpected end of data"):
        load(Source(str(tmp_path)))


@pytest.mark.parametrize("load", loaders())
def test_shards_of_other_samples_than_pictures_stop_the_run(tmp_path, load):
    write_shard(tmp_path / "train" / "a.tar", {**samples([1]), **samples([2], kind="jpg")})
    with pytest.raises(ValueError, match="Split 'train' of .* cannot be read: .* don't share the same"):
        load(Source(str(tmp_path)))
    write_shard(tmp_path / "train" / "a.tar", {"a.txt": b"a", "b.txt": b"b"})
    with pytest.raises(ValueError, match=r"of which \[\] hold pictures: name one by --image_column"):
        load(Source(str(tmp_path)))


def write_parquet(folder, count=4, split="train", columns=None):
    """A data set of the Hub as a folder: parquet with the pictures inside."""
    folder.mkdir(exist_ok=True)
    files = [{"bytes": encode(noise(number), "PNG"), "path": None} for number in range(count)]
    columns = columns or {"image": files, "text": [f"number {number}" for number in range(count)]}
    data = Dataset.from_dict(columns)
    for name in set(columns) & {"image", "photo"}:
        data = data.cast_column(name, Image())
    data.to_parquet(folder / f"{split}.parquet")
    return files


@pytest.mark.parametrize("load", loaders())
def test_a_data_set_is_read(tmp_path, load):
    write_parquet(tmp_path / "set")
    write_parquet(tmp_path / "set", 2, "validation")
    source = Source(dataset_name=str(tmp_path / "set"))
    assert sorted(load(source).captions) == [f"number {number}" for number in range(4)]
    assert len(load(source, "validation")) == 2 and set(source.splits) == {"train", "validation"}


@pytest.mark.parametrize("load", loaders())
def test_a_bad_row_of_a_data_set_is_skipped_by_number(tmp_path, load):
    files = [{"bytes": encode(noise(0), "PNG"), "path": None}, {"bytes": b"x", "path": None}, None]
    write_parquet(tmp_path / "set", columns={"image": files, "text": ["good", "bad", "none"]})
    report = tmp_path / "skipped.jsonl"
    pictures = load(Source(dataset_name=str(tmp_path / "set")), max_skipped_share=0.9, report=report)
    assert pictures.captions == ["good"]
    lines = {line["name"]: line["reason"] for line in map(json.loads, report.read_text().splitlines())}
    assert lines == {"row 1": "not an image", "row 2": "no picture"}


def test_one_configuration_of_several_is_chosen_by_name(tmp_path):
    for name in ("small", "large"):
        write_parquet(tmp_path / name, columns={"image": write_parquet(tmp_path / name, 1), "text": [name]})
    configs = "".join(f"- config_name: {name}\n  data_files: {name}/*.parquet\n" for name in ("small", "large"))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    assert load_pictures(Source(None, str(tmp_path), "large"), "train", 32).captions == ["large"]
    with pytest.raises(ValueError, match="(?s)No split 'train' .*Config name is missing.*'large'"):
        load_pictures(Source(None, str(tmp_path)), "train", 32)


def test_columns_are_named_or_found(tmp_path):
    files = write_parquet(tmp_path / "set", 1)
    raw = [files[0]["bytes"]]
    write_parquet(tmp_path / "one", columns={"photo": files, "title": ["a"], "label": [3]})
    write_parquet(tmp_path / "bytes", columns={"raw": raw, "text": ["b"]})
    write_parquet(tmp_path / "two", columns={"image": files, "photo": files, "json": [{"a": "c", "text": "d"}]})

    def load(name, **columns):
        return load_pictures(Source(dataset_name=str(tmp_path / name), **columns), "train", 32).captions

    assert load("one") == [""] and load("one", caption_column="title") == ["a"]
    assert load("bytes", image_column="raw") == ["b"]
    assert load("two") == ["d"] and load("two", caption_column="json.a", image_column="photo") == ["c"]
    for name, columns, message in (
        (
            "one",
            {"image_column": "picture"},
            r"columns \['photo', 'title', 'label'\], but no 'picture' \(--image_column\)",
        ),
        ("one", {"image_column": "label"}, "--image_column 'label' holds no pictures but Value"),
        ("one", {"caption_column": "words"}, r"but no 'words' \(--caption_column\)"),
        ("two", {"caption_column": "json.words"}, r"but no 'json.words' \(--caption_column\)"),
        ("one", {"caption_column": "label"}, "In 'row 0' the caption column 'label' must hold text, it holds 3"),
        ("bytes", {}, r"columns \['raw', 'text'\], of which \[\] hold pictures: name one by --image_column"),
    ):
        with pytest.raises(ValueError, match=message):
            load(name, **columns)


def test_usual_captions_are_tried_in_their_order(tmp_path):
    files = write_parquet(tmp_path / "set", 1)
    columns = {
        "image": files,
        "caption": ["caption"],
        "txt": ["txt"],
        "text": ["text"],
        "json": [{"prompt": "prompt"}],
    }
    for left in ("text", "txt", "caption", "json"):
        write_parquet(tmp_path / left, columns=columns)
        found = load_pictures(Source(dataset_name=str(tmp_path / left)), "train", 32).captions
        assert found == ["prompt" if left == "json" else left]
        del columns[left]
    assert CAPTIONS[0] == "text"


def test_what_is_no_data_set_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"No split 'train' of pictures can be read from '{tmp_path / 'nowhere'}'"):
        load_pictures(Source(dataset_name=str(tmp_path / "nowhere")), "train", 32)


def test_a_damaged_table_stops_the_run(tmp_path):
    write_parquet(tmp_path / "set")
    path = tmp_path / "set" / "train.parquet"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="(?s)plit 'train' of .* cannot be read.*[Pp]arquet"):
        load_pictures(Source(dataset_name=str(tmp_path / "set")), "train", 32)


@pytest.mark.parametrize("load", loaders())
def test_a_table_may_name_files(tmp_path, load):
    write_good(tmp_path / "pictures", 1)
    row = {"image": str(tmp_path / "pictures" / "good-000.png"), "text": "a"}
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
    source = {"dataset_name": str(tmp_path / "train"), "image_column": "image"}
    (tmp_path / "train").mkdir()
    (tmp_path / "train.jsonl").rename(tmp_path / "train" / "train.jsonl")
    assert load(Source(**source)).captions == ["a"]


def test_pictures_in_an_archive_are_read_and_named_by_it(tmp_path):
    (tmp_path / "train").mkdir()
    with zipfile.ZipFile(tmp_path / "train" / "more.zip", "w") as archive:
        for number in range(2):
            archive.writestr(f"{number}.png", encode(noise(number), "PNG"))
        archive.writestr("bad.png", b"no picture")
    report = tmp_path / "skipped.jsonl"
    for load in (load_pictures, lambda *a: stream_pictures(*a, 99)):
        assert len(load(Source(str(tmp_path)), "train", Limits(32, max_skipped_share=0.5, report=report))) == 2
        (line,) = map(json.loads, report.read_text().splitlines())
        assert line["name"] == "zip://bad.png::train/more.zip"
        report.unlink()


@pytest.mark.parametrize("load", loaders())
def test_strays_of_a_split_are_those_of_its_folder(tmp_path, load):
    for split in ("train", "val"):
        (tmp_path / split / "deep").mkdir(parents=True)
        write_good(tmp_path / split / "deep", 4)
        (tmp_path / split / f"{split}.txt").write_text("a stray")
    report = tmp_path / "skipped.jsonl"
    for split in ("train", "validation"):
        load(Source(str(tmp_path)), split, max_skipped_share=0.5, report=report)
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert [(line["split"], line["name"]) for line in lines] == [
        ("train", "train/train.txt"),
        ("validation", "val/val.txt"),
    ]


@pytest.mark.parametrize("load", loaders())
def test_a_split_without_anything_to_read_is_no_missing_split(tmp_path, load):
    write_good(tmp_path / "train", 2)
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "notes.txt").write_text("no picture")
    source = Source(str(tmp_path))
    assert list(source.splits) == ["train", "validation"] and len(load(source)) == 2
    with pytest.raises(ValueError, match="Split 'validation' of .* cannot be read: none of its files is a picture"):
        load(source, "validation")


def test_a_shard_beside_pictures_is_no_picture(tmp_path):
    write_good(tmp_path / "train", 2)
    write_shard(tmp_path / "train" / "a.tar", samples([1]))
    with pytest.raises(ValueError, match="1 not a picture file.*'train/a.tar'"):
        load_pictures(str(tmp_path), "train", 32)
