"""`mg-diffusion data bazaar128` against a server on this machine, with small archives laid out like the real ones."""

import dataclasses
import hashlib
import http.server
import io
import json
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from mg_diffusion.cli import main
from mg_diffusion.data.archives import contents_digest, default_cache, fetch
from mg_diffusion.data.bazaar import build
from mg_diffusion.data.check import check_folder
from mg_diffusion.data.selections import left_out
from mg_diffusion.data.sources import SOURCES


CREDIT = "CC-BY by An Author - https://example.org/1"
# From the list of what is left out, from validation (its MD5 ends so), and from training.
LEFT_OUT, HELD_OUT, KEPT = (
    "b5d1e4db-4455-412d-903b-108fb83723a8",
    "71c85a46-6bf9-4929-a141-386d07bbe139",
    "ea7b6656-3f84-4eb3-9099-23e623fc1018",
)
CSV = (
    "image,sender_id,label,kids\n"
    f"{LEFT_OUT},7,Blazer,False\n{HELD_OUT},8,Other,False\n{KEPT},148,T-Shirt,False\n"
    "00000000-0000-0000-0000-000000000000,9,Not sure,False\n11111111-1111-1111-1111-111111111111,9,Pants,False\n"
)


def jpeg(seed: int, size=(60, 40)) -> bytes:
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(small).resize(size, PIL.Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


def flowers() -> dict[str, bytes]:
    names = [f"{label}/{index}_a.jpg" for label in ("daisy", "tulips") for index in range(5)]
    credits = [f"{name} {CREDIT}" for name in names[:-1]]
    credits.append(f"{names[-1]} CC-BY https://example.org/2 - by Ünal")
    pictures = {name: jpeg(seed) for seed, name in enumerate(names)}
    return {**pictures, "LICENSE.txt": ("CC BY 2.0\n\n" + "\n".join(credits)).encode()}


def grocery() -> dict[str, bytes]:
    names = (
        "train/Fruit/Apple/Pink-Lady/Pink-Lady_001.jpg",
        "test/Vegetables/Carrots/Carrots_001.jpg",
        "val/Vegetables/Tomato/Vine-Tomato/Vine-Tomato_001.jpg",
        "val/Fruit/Passion-Fruit/Passion-Fruit_001.jpg",
        "train/Packages/Milk/Some-Milk/Some-Milk_001.jpg",
        "iconic-images-and-descriptions/Fruit/Lemon/Lemon_Iconic.jpg",
    )
    return {**{f"dataset/{name}": jpeg(20 + seed) for seed, name in enumerate(names)}, "LICENSE": b"MIT"}


def clothing() -> dict[str, bytes]:
    images = (LEFT_OUT, HELD_OUT, KEPT, "00000000-0000-0000-0000-000000000000")
    pictures = {f"images/{image}.jpg": jpeg(40 + seed) for seed, image in enumerate(images)}
    return {**pictures, "images.csv": CSV.encode(), "LICENSE": b"CC0"}


def pack_tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        link = tarfile.TarInfo("flower_photos/daisy/link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
        for name, content in {"../daisy/../../evil.jpg": jpeg(0), **files}.items():
            entry = tarfile.TarInfo(f"flower_photos/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def pack_zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {"../../evil.jpg": jpeg(0), **files}.items():
            archive.writestr(f"repository-0000/{name}", content)


class Server(http.server.ThreadingHTTPServer):
    """Serves `folder`; ranges if `ranges`, only the first `cut` bytes of an answer if that is set."""

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.ranges, self.cut, self.asked = folder, True, None, []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path, asked = self.server.folder / self.path[1:], self.headers.get("Range")
        self.server.asked.append((self.path[1:], asked))
        if not path.exists():
            return self.send_error(404)
        content = path.read_bytes()
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges else 0
        if start and start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][: self.server.cut])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "served"
    folder.mkdir()
    with Server(folder) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def sources(server):
    """The real table, with addresses, counts and checksums of the small archives."""
    pack_tar(server.folder / "flowers", flowers())
    pack_zip(server.folder / "grocery", grocery())
    pack_zip(server.folder / "clothing", clothing())
    real = {source.name: source for source in SOURCES}
    used = {
        "grocery": {
            name: content for name, content in grocery().items() if "/Fruit/" in name or "/Vegetables/" in name
        },
        "clothing": {f"images/{name}.jpg": clothing()[f"images/{name}.jpg"] for name in (LEFT_OUT, HELD_OUT, KEPT)},
    }
    used["grocery"] = {name: content for name, content in used["grocery"].items() if "iconic" not in name}
    digests = {
        name: contents_digest({one: hashlib.sha256(content).hexdigest() for one, content in files.items()})
        for name, files in used.items()
    }
    sha256 = hashlib.sha256((server.folder / "flowers").read_bytes()).hexdigest()
    known = {
        "flowers": {"pictures": 10, "sha256": sha256},
        "grocery": {"pictures": 4, "contents_sha256": digests["grocery"]},
        "clothing": {"pictures": 3, "contents_sha256": digests["clothing"]},
    }
    return [
        dataclasses.replace(real[name], url=f"{server.address}/{name}", **fields) for name, fields in known.items()
    ]


def rows(folder: Path, split: str) -> list[dict]:
    text = (folder / split / "metadata.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_the_training_set_is_built(sources, tmp_path):
    output = tmp_path / "made" / "bazaar"
    assert build(output, cache_dir=tmp_path / "cache", sources=sources) == {"train": 11, "val": 5}
    train, val = rows(output, "train"), rows(output, "val")
    # RandomState(42).permutation(5) begins with 1; carrots are of the test split, which serves for training.
    assert [row["file_name"] for row in val] == [
        "flowers_daisy/1_a.webp",
        "flowers_tulips/1_a.webp",
        "grocery_fruit_passion-fruit/val_Passion-Fruit_001.webp",
        "grocery_vegetables_tomato/val_Vine-Tomato_001.webp",
        f"clothing_other/{HELD_OUT}.webp",
    ]
    assert [row["text"] for row in val][2:] == [
        "a photo of passion fruits",
        "a photo of tomatoes",
        "a photo of garment",
    ]
    assert train[7] == {
        "file_name": "flowers_tulips/4_a.webp",
        "text": "a photo of tulips",
        "label": "flowers_tulips",
        "license": "CC BY 2.0",
        "author": "Ünal",
        "source_url": "https://example.org/2",
    }
    assert train[9] == {
        "file_name": "grocery_vegetables_carrots/test_Carrots_001.webp",
        "text": "a photo of carrots",
        "label": "grocery_vegetables_carrots",
        "license": "MIT",
        "author": "Marcus Klasson et al.",
        "source_url": "https://github.com/marcusklasson/GroceryStoreDataset",
    }
    assert (train[10]["file_name"], train[10]["author"]) == (f"clothing_tshirt/{KEPT}.webp", "contributor 148")
    assert sorted(path.name for path in output.iterdir()) == [
        "LICENSE.clothing.txt",
        "LICENSE.flowers.txt",
        "LICENSE.grocery.txt",
        "README.md",
        "train",
        "val",
    ]
    report = check_folder(output)
    assert report["problems"] == [] and report["splits"]["train"]["licenses"]["counts"] == {
        "CC BY 2.0": 8,
        "MIT": 2,
        "CC0 1.0": 1,
    }
    assert (
        not list(tmp_path.rglob("evil*")) and not list(tmp_path.rglob("link*")) and not list(tmp_path.rglob("*.part"))
    )


def test_pictures_are_the_centered_square_at_the_resolution(sources, tmp_path):
    build(tmp_path / "out", resolution=32, cache_dir=tmp_path / "cache", sources=sources)
    with PIL.Image.open(io.BytesIO(flowers()["daisy/0_a.jpg"])) as original:
        expected = original.crop((10, 0, 50, 40)).resize((32, 32), PIL.Image.Resampling.LANCZOS)
    with PIL.Image.open(tmp_path / "out" / "train" / "flowers_daisy" / "0_a.webp") as made:
        assert made.format == "WEBP" and made.size == (32, 32)
        assert np.abs(np.asarray(made.convert("RGB"), float) - np.asarray(expected, float)).mean() < 4
    assert "pictures of 32 x 32 pixels" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_a_larger_cut_takes_what_is_large_enough(sources, server, tmp_path):
    larger = {**flowers(), "daisy/0_a.jpg": jpeg(0, (260, 240)), "tulips/1_a.jpg": jpeg(1, (240, 239))}
    pack_tar(server.folder / "flowers", larger)
    sha256 = hashlib.sha256((server.folder / "flowers").read_bytes()).hexdigest()
    given = [dataclasses.replace(one, sha256=sha256) if one.name == "flowers" else one for one in sources]
    made = build(tmp_path / "out", resolution=192, cache_dir=tmp_path / "cache", sources=given)
    assert made == {"train": 1, "val": 0}
    assert [path.name for path in (tmp_path / "out").rglob("*.webp")] == ["0_a.webp"]
    assert [row["file_name"] for row in rows(tmp_path / "out", "train")] == ["flowers_daisy/0_a.webp"]


def test_a_cut_larger_than_all_sources_is_refused(sources, tmp_path):
    with pytest.raises(ValueError, match="No source has the 250 pixels that pictures of 200 are cut of"):
        build(tmp_path / "out", resolution=200, cache_dir=tmp_path / "cache", sources=sources)
    assert not list(tmp_path.glob("out*"))


def test_pictures_load_as_an_imagefolder(sources, tmp_path):
    from datasets import load_dataset

    build(tmp_path / "out", cache_dir=tmp_path / "cache", sources=sources)
    for split, count in (("train", 11), ("validation", 5)):
        loaded = load_dataset("imagefolder", data_dir=str(tmp_path / "out"), split=split)
        assert (
            len(loaded) == count and loaded[0]["image"].size == (128, 128) and loaded[0]["text"].startswith("a photo")
        )


def test_archives_are_downloaded_once_and_files_by_hand_not_at_all(sources, server, tmp_path):
    given = [("clothing", str(server.folder / "clothing"))]
    for name in ("one", "two"):
        build(tmp_path / name, cache_dir=tmp_path / "cache", sources=sources, given=given)
    assert [name for name, _ in server.asked] == ["flowers", "grocery"]
    assert rows(tmp_path / "one", "train") == rows(tmp_path / "two", "train")


def test_a_download_that_broke_off_goes_on(sources, server, tmp_path):
    whole = (server.folder / "flowers").read_bytes()
    server.cut = 1000
    with pytest.raises(ValueError, match=f"it broke off after 1000 of {len(whole)} bytes; run again to go on"):
        fetch(sources[0], tmp_path)
    assert (tmp_path / "flower_photos.tgz.part").stat().st_size == 1000
    server.cut = None
    assert fetch(sources[0], tmp_path).read_bytes() == whole
    assert server.asked == [("flowers", None), ("flowers", "bytes=1000-")]


def test_a_server_without_ranges_sends_all_again(sources, server, tmp_path):
    (tmp_path / "flower_photos.tgz.part").write_bytes(b"something else")
    server.ranges = False
    assert fetch(sources[0], tmp_path).read_bytes() == (server.folder / "flowers").read_bytes()


def test_a_part_that_is_longer_than_the_file_is_thrown_away(sources, server, tmp_path):
    (tmp_path / "flower_photos.tgz.part").write_bytes(bytes(10**6))
    with pytest.raises(ValueError, match="flowers: http.* cannot be downloaded: .*Try again"):
        fetch(sources[0], tmp_path)
    assert fetch(sources[0], tmp_path).read_bytes() == (server.folder / "flowers").read_bytes()


def test_offline_the_address_and_the_way_by_hand_are_told(sources, tmp_path):
    away = dataclasses.replace(sources[0], url="http://127.0.0.1:9/flower_photos.tgz")
    with pytest.raises(ValueError) as caught:
        build(tmp_path / "out", cache_dir=tmp_path / "cache", sources=[away])
    assert str(caught.value).startswith("flowers: http://127.0.0.1:9/flower_photos.tgz cannot be downloaded: ")
    assert "refused" in str(caught.value) and "give --source flowers=FILE" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_address_without_a_file_is_told(sources, server, tmp_path):
    (server.folder / "flowers").unlink()
    with pytest.raises(ValueError, match="flowers cannot be downloaded: Not Found"):
        fetch(sources[0], tmp_path)


# -- archives that are not what is expected -----------------------------------------------------------------------------
def damage(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip(path: Path) -> None:
    """Another byte in the first picture of a zip, which its checksum tells."""
    content = bytearray(path.read_bytes())
    content[3000] ^= 255
    path.write_bytes(bytes(content))


def other_picture(path: Path) -> None:
    pack_zip(path, {**grocery(), "dataset/test/Vegetables/Carrots/Carrots_001.jpg": jpeg(99)})


def no_picture(path: Path) -> None:
    pack_zip(path, {**grocery(), "dataset/test/Vegetables/Carrots/Carrots_001.jpg": b"no picture"})


def without(name: str, files: dict[str, bytes], pack):
    return lambda path: pack(path, {key: value for key, value in files.items() if key != name})


def uncredited(path: Path) -> None:
    pack_tar(path, {**flowers(), "LICENSE.txt": b"CC BY 2.0"})


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("flowers", damage, "cannot be read as an archive: .*Delete it and download it again"),
        ("grocery", damage, "cannot be read as an archive"),
        ("grocery", flip, "cannot be read as an archive"),
        (
            "grocery",
            other_picture,
            "not those that grocery had: the digest of their contents is [0-9a-f]{64}, expected",
        ),
        ("grocery", no_picture, "Carrots_001.jpg in .* cannot be read as a picture"),
        (
            "grocery",
            without("dataset/test/Vegetables/Carrots/Carrots_001.jpg", grocery(), pack_zip),
            "3 pictures .* 4",
        ),
        ("flowers", without("LICENSE.txt", flowers(), pack_tar), "The archive of flowers has no LICENSE.txt"),
        ("flowers", uncredited, "credits nobody for daisy/0_a.jpg"),
        ("clothing", without("images.csv", clothing(), pack_zip), "The archive of clothing has no images.csv"),
    ],
)
def test_an_archive_that_holds_something_else_is_refused(sources, server, tmp_path, name, change, message):
    change(server.folder / name)
    sources = [dataclasses.replace(source, sha256=None) for source in sources]
    with pytest.raises(ValueError, match=message):
        build(tmp_path / "out", cache_dir=tmp_path / "cache", sources=sources)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]


def test_a_wrong_checksum_is_told(sources, server, tmp_path):
    damage(server.folder / "flowers")
    message = (
        "is not the archive of flowers that is expected: its SHA-256 is [0-9a-f]{64}, that of http.* is [0-9a-f]{64}"
    )
    with pytest.raises(ValueError, match=message):
        fetch(sources[0], tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([("roses", "x")], "--source roses=x: there is no source 'roses'; known are flowers, grocery, clothing"),
        ([("flowers", "x")], "--source flowers=x: there is no such file"),
        ([("flowers", __file__)], "is not the archive of flowers that is expected"),
        ([("grocery", __file__)] * 2, "--source grocery is given twice"),
    ],
)
def test_files_by_hand_are_checked_before_anything_is_downloaded(sources, server, tmp_path, given, message):
    with pytest.raises(ValueError, match=message):
        build(tmp_path / "out", cache_dir=tmp_path / "cache", sources=sources, given=given)
    assert server.asked == []


# -- the command ------------------------------------------------------------------------------------------------------
def test_the_command_refuses_other_archives_than_the_real_ones(server, sources, tmp_path, capsys):
    files = [flag for one in sources for flag in ("--source", f"{one.name}={server.folder / one.name}")]
    assert main(["data", "bazaar128", str(tmp_path / "out"), *files, "--cache_dir", str(tmp_path / "cache")]) == 2
    printed = capsys.readouterr().err
    assert "error: " in printed and SOURCES[0].sha256 in printed and not (tmp_path / "out").exists()


def test_the_command_prints_what_it_made(sources, tmp_path, monkeypatch, capsys):
    # The command takes no addresses, so the table is what a mirror would change.
    monkeypatch.setitem(build.__kwdefaults__, "sources", sources)
    flags = ["--cache-dir", str(tmp_path / "cache"), "--resolution", "16"]
    assert main(["data", "bazaar128", str(tmp_path / "out"), *flags]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out'}: 11 training and 5 validation pictures\n"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["{tmp}"], "is there already. Give a folder that does not exist or is empty."),
        (["{tmp}/file"], "is there already"),
        (["{tmp}/out", "--resolution", "15"], "must be a whole number of at least 16"),
        (["{tmp}/out", "--resolution", "513"], "must be at most 512: the sources are no larger"),
        (["{tmp}/out", "--source", "flowers"], "must be NAME=FILE, got 'flowers'"),
        ([], "required: OUT"),
    ],
)
def test_flags_that_do_not_fit_are_told(tmp_path, capsys, flags, message):
    (tmp_path / "file").write_text("mine")
    try:
        status = main(["data", "bazaar128", *(flag.format(tmp=tmp_path) for flag in flags)])
    except SystemExit as stop:  # argparse
        status = stop.code
    assert status == 2 and message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# -- what is fixed ----------------------------------------------------------------------------------------------------
def test_the_real_table_and_list_are_whole():
    assert [source.name for source in SOURCES] == ["flowers", "grocery", "clothing"]
    assert all(len(source.sha256 or source.contents_sha256) == 64 for source in SOURCES)
    # What the shipped training set has, 12,322 pictures, and what its description says was left out, 127 + 60.
    assert len(left_out()) == 187 and sum(source.pictures for source in SOURCES) - len(left_out()) == 12322


def test_the_cache_follows_the_convention(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "mg-diffusion" / "data"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache" / "mg-diffusion" / "data"
