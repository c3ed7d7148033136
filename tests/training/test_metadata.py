"""Metadata beside pictures: training and `mg-diffusion data check` read the same, and nothing is ignored without a word."""

import io
import json
import re
import zipfile

import numpy as np
import PIL.Image
import pyarrow
import pyarrow.parquet
import pytest

from mg_diffusion.data.check import check_folder
from mg_diffusion.metadata import read_rows
from mg_diffusion.training.pictures import Limits, load_pictures, stream_pictures
from mg_diffusion.training.sources import Source


WORDS = ["None", "null", "NA", "nan", "N/A", "#N/A", "-inf", "007", "1e5", "True", "ä, “b”", 'say ""', " "]


def draw(folder, numbers):
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{number}.png")


def csv_of(words):
    rows = "".join(f'{index}.png,"{word.replace(chr(34), 2 * chr(34))}"\n' for index, word in enumerate(words))
    return "file_name,text\n" + rows


def jsonl_of(words, before=""):
    rows = [{"file_name": f"{before}{index}.png", "text": word} for index, word in enumerate(words)]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def trained_on(folder, split="train"):
    """Captions as read and as streamed, which must be the same, as a sorted list."""
    read = load_pictures(str(folder), split, 32).captions
    streamed = stream_pictures(Source(str(folder)), split, Limits(32), 99).captions
    assert sorted(read) == sorted(streamed)
    return sorted(read)


def problems_of(folder):
    return check_folder(folder, look_for_faces=False)["problems"]


def check_agrees(folder, captions):
    report = check_folder(folder, look_for_faces=False)
    assert report["problems"] == []
    assert report["splits"]["train"]["captions"]["missing"] == sum(not one.strip() for one in captions)


FORMS = {
    "csv": ("metadata.csv", lambda: csv_of(WORDS).encode()),
    "csv with a mark": ("metadata.csv", lambda: csv_of(WORDS).encode("utf-8-sig")),
    "csv of Windows": ("metadata.csv", lambda: csv_of(WORDS).replace("\n", "\r\n").encode("utf-16")),
    "csv in UTF-32": ("metadata.csv", lambda: csv_of(WORDS).encode("utf-32")),
    "csv with spaces": (
        "metadata.csv",
        lambda: csv_of(WORDS).replace(",", ", ", 1).replace(".png,", ".png, ").encode(),
    ),
    "jsonl": ("metadata.jsonl", lambda: jsonl_of(WORDS).encode()),
    "jsonl with a mark": ("metadata.jsonl", lambda: jsonl_of(WORDS).encode("utf-8-sig")),
    "jsonl of Windows": ("metadata.jsonl", lambda: jsonl_of(WORDS).replace("\n", "\r\n\r\n").encode("utf-16")),
    "parquet": ("metadata.parquet", lambda: parquet_of(WORDS)),
}


def parquet_of(words):
    table = pyarrow.table({"file_name": [f"{index}.png" for index in range(len(words))], "text": words})
    pyarrow.parquet.write_table(table, file := io.BytesIO())
    return file.getvalue()


@pytest.mark.parametrize("form", FORMS)
def test_text_is_read_as_it_stands(tmp_path, form):
    draw(tmp_path / "train", range(len(WORDS)))
    name, content = FORMS[form]
    (tmp_path / "train" / name).write_bytes(content())
    assert trained_on(tmp_path) == sorted(WORDS)
    check_agrees(tmp_path, WORDS)


def test_words_of_csv_tables_and_archives_are_text(tmp_path):
    draw(tmp_path / "pictures", range(2))
    rows = "".join(f"{tmp_path}/pictures/{index}.png,{word},\n" for index, word in enumerate(["null", "NA"]))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.csv").write_text("image,text,width\n" + rows)
    source = Source(dataset_name=str(tmp_path / "set"), image_column="image")
    assert sorted(load_pictures(source, "train", 32).captions) == ["NA", "null"]
    (tmp_path / "zipped" / "train").mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "zipped" / "train" / "all.zip", "w") as archive:
        for index in range(2):
            archive.write(tmp_path / "pictures" / f"{index}.png", f"{index}.png")
        archive.writestr("metadata.csv", csv_of(["None", "nan"]))
    assert trained_on(tmp_path / "zipped") == ["None", "nan"]


@pytest.mark.parametrize(
    ("name", "text", "captions"),
    [
        ("metadata.csv", "file_name,text\nx\\0.png,a\n./x/1.png,NA\n", ["NA", "a"]),
        ("metadata.csv", "file_name,text\n.\\x\\0.png,a\nx\\..\\x//1.png,b\n", ["a", "b"]),
        ("metadata.csv", "image_file_name,caption\nx/0.png,a\nx/1.png,\n", ["", "a"]),
        ("metadata.jsonl", '{"file_name": "x/0.png", "txt": "a", "n": 1}\n{"file_name": "x/1.png"}\n', ["", "a"]),
        ("metadata.jsonl", '{"file_name": "x/0.png", "text": null}\n{"file_name": "x/1.png", "text": "b"}\n', ["", "b"]),
        ("metadata.jsonl", "".join(f'{{"file_name": "x/{i}.png", "json": {{"prompt": "p"}}}}\n' for i in (0, 1)), ["p"] * 2),
    ],
    ids=["paths", "paths of Windows", "columns", "lacking keys", "null", "objects"],
)  # fmt: skip
def test_rows_are_read_alike(tmp_path, name, text, captions):
    draw(tmp_path / "train" / "x", range(2))
    (tmp_path / "train" / name).write_text(text)
    assert trained_on(tmp_path) == captions
    check_agrees(tmp_path, captions)


@pytest.mark.parametrize(
    ("place", "content", "said"),
    [
        ("metadata.jsonl", jsonl_of("ab", "train/"), "'metadata.jsonl' would not be read as metadata"),
        ("captions.json", "{}", "'captions.json' would not be read"),
        ("train/metadata.json", jsonl_of("ab"), "'train/metadata.json' would not be read"),
        ("train/Metadata.JSONL", jsonl_of("ab"), "'train/Metadata.JSONL' would not be read"),
        ("train/metadata.tsv", "file_name\ttext\n0.png\ta\n", "'train/metadata.tsv' would not be read"),
        ("train/deep/prompts.csv", csv_of("ab"), "'train/deep/prompts.csv' would not be read"),
        ("train/prompts.csv", csv_of("ab").encode("utf-16"), "'train/prompts.csv' would not be read"),
        ("train/all.parquet", parquet_of("ab"), "'train/all.parquet' would not be read"),
        ("train/metadata.jsonl.gz", b"\x1f\x8b", "'train/metadata.jsonl.gz' would not be read"),
        ("train/metadata.csv", csv_of("ab").replace(",", ";"), "but no 'file_name'; the first line names the columns"),
        ("train/metadata.csv", "file_name,text\n0.png,a, b\n", "line 2 has more values than .* commas in quotes"),
        ("train/metadata.csv", 'file_name,text\n0.png,"a\n', "is no CSV: unexpected end of data"),
        ("train/metadata.csv", csv_of(["\u00e4"]).encode("latin-1"), r"no UTF-8 text \(byte 22\); save it as UTF-8"),
        ("train/metadata.csv", "file_name,text,text\n0.png,a,b\n", "columns of the same name"),
        ("train/metadata.csv", "file_name,text\n", "it has no rows"),
        ("train/metadata.csv", "", "but no 'file_name'"),
        ("train/metadata.jsonl", json.dumps([{"file_name": "0.png", "text": "a"}]), "line 1 is not an object"),
        ("train/metadata.jsonl", "\n{'file_name': '0.png'}\n", "line 2 is no JSON"),
        ("train/metadata.jsonl", '{"file_name": "0.png", "text": "\\ud83d"}', r"line 1 has an escape such as \\ud800"),
        ("train/metadata.jsonl", jsonl_of("ab", "../train/"), r"it names '\.\./train/0\.png'; expected is a path inside"),
        ("train/metadata.parquet", b"no parquet", "it is no parquet"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_both(tmp_path, place, content, said):
    draw(tmp_path / "train", range(2))
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_bytes(content if isinstance(content, bytes) else content.encode())
    for load in (load_pictures, lambda *arguments: stream_pictures(*arguments, 99)):
        with pytest.raises(ValueError, match=said):
            load(Source(str(tmp_path)), "train", Limits(32))
    assert any(re.search(said, problem) for problem in problems_of(tmp_path))


def test_links_are_followed_to_files_and_named_where_they_are_not(tmp_path):
    draw(tmp_path / "real", range(2))
    (tmp_path / "real" / "metadata.jsonl").write_text(jsonl_of("ab"))
    (tmp_path / "files" / "train").mkdir(parents=True)
    for path in (tmp_path / "real").iterdir():
        (tmp_path / "files" / "train" / path.name).symlink_to(path)
    assert trained_on(tmp_path / "files") == ["a", "b"] and problems_of(tmp_path / "files") == []
    (tmp_path / "files" / "train" / "metadata.jsonl").unlink()
    (tmp_path / "files" / "train" / "metadata.jsonl").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="'train/metadata.jsonl' would not be read"):
        trained_on(tmp_path / "files")
    assert any("would not be read" in problem for problem in problems_of(tmp_path / "files"))
    draw(tmp_path / "folders" / "train", range(5, 7))
    (tmp_path / "folders" / "train" / "more").symlink_to(tmp_path / "real")
    with pytest.raises(ValueError, match="1 not a file.*train/more"):
        trained_on(tmp_path / "folders")
    assert problems_of(tmp_path / "folders") == ["train/more is a link to a folder, which training does not follow"]
    (tmp_path / "split").mkdir()
    (tmp_path / "split" / "train").symlink_to(tmp_path / "real")
    with pytest.raises(ValueError, match="Links to folders are not followed"):
        trained_on(tmp_path / "split")
    assert problems_of(tmp_path / "split") == ["train is a link to a folder, which training does not follow"]


def test_captions_of_another_name_are_told(tmp_path, capsys):
    draw(tmp_path / "train", range(2))
    (tmp_path / "train" / "metadata.csv").write_text("file_name,words\n0.png,a\n1.png,b\n")
    load_pictures(str(tmp_path), "train", Limits(32, report=tmp_path.with_suffix(".jsonl")))
    assert "no captions; ['words'] could be named by --caption_column" in capsys.readouterr().out
    (problem,) = problems_of(tmp_path)
    assert "has no captions by name" in problem and "['words']" in problem
    found = load_pictures(Source(str(tmp_path), caption_column="words"), "train", 32).captions
    assert sorted(found) == ["a", "b"]
    assert check_folder(tmp_path, "words", look_for_faces=False)["problems"] == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (jsonl_of("ab") + jsonl_of("c"), "names 1 pictures in several rows"),
        (jsonl_of([1, 2]), "2 captions of train are no text, and stop training"),
        (jsonl_of("ab", "/"), "it names '/0.png'; expected is a path inside the folder"),
    ],
    ids=["twice", "numbers", "absolute"],
)
def test_what_training_reads_otherwise_is_a_problem(tmp_path, text, problem):
    draw(tmp_path / "train", range(2))
    (tmp_path / "train" / "metadata.jsonl").write_text(text)
    assert any(problem in one for one in problems_of(tmp_path))


def test_many_rows_keep_their_columns(tmp_path):
    from mg_diffusion.training.imagefolder import ROWS, tables

    path = tmp_path / "metadata.jsonl"
    rows = [{"file_name": f"{index}.png", "text": "a"} for index in range(ROWS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"file_name": "last.png"}]))
    first, last = tables(str(path), ".jsonl")
    assert first.num_rows == ROWS and last.to_pylist() == [{"file_name": "last.png", "text": None}]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"file_name": "last.png", "late": 1}]))
    with pytest.raises(ValueError, match=r"\['late'\] are first named after 10000 rows"):
        list(tables(str(path), ".jsonl"))
    with path.open("rb") as file:
        assert sum(1 for _ in read_rows(file, ".jsonl")) == ROWS + 1
