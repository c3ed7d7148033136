"""Files of more bits than Pillow reads: read right, or refused, and what the sentence says to do gives the picture of the file."""

import io
import pickle
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.features
import PIL.Image
import pytest
import torch

from mg_diffusion.cli import main
from mg_diffusion.cli.references import in_usual_form
from mg_diffusion.decoding import Unusable, decode
from mg_diffusion.edits import read_mask
from mg_diffusion.edits.hinted import read_strokes
from mg_diffusion.edits.sources import opened
from mg_diffusion.encoder.reading import read_cut_out, read_image
from mg_diffusion.encoder.reading import read_mask as read_mask_in_reference
from mg_diffusion.masks import read_one_mask
from mg_diffusion.pictures import has_alpha, is_transparent, read_upright
from mg_diffusion.pipelines.other_adapters import as_shown, readable
from mg_diffusion.pipelines.pictures import crop_alike, list_images, list_masks
from mg_diffusion.reference_pictures import read_place, read_shown
from mg_diffusion.unread_form import UnreadForm


cv2 = pytest.importorskip("cv2")
HEIGHT, WIDTH = 24, 32
DEEP = np.random.default_rng(3).integers(0, 65536, (HEIGHT, WIDTH, 4)).astype(np.uint16)
RGB, GRAY = DEEP[..., :3], DEEP[..., 0]
BGRA = DEEP[..., [2, 1, 0, 3]]


def png(path: Path, samples: np.ndarray, kind: int, key: np.ndarray) -> None:
    """A PNG file of 16 bits in which one color stands for transparent, which no library here writes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    head = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], 16, kind, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"tRNS", key.astype(">u2").tobytes()) + chunk(b"IDAT", zlib.compress(rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts + chunk(b"IEND", b""))


def pnm(path: Path, samples: np.ndarray, most: int) -> None:
    kind = "P6" if samples.ndim == 3 else "P5"
    path.write_bytes(f"{kind} {WIDTH} {HEIGHT} {most}\n".encode() + samples.astype(">u2").tobytes())


def tiff(path: Path, samples: np.ndarray, **options) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(path, samples, **{"photometric": "rgb", **options})


def tiff_of_12_bits(path: Path, samples: np.ndarray) -> None:
    """Gray, two samples in three bytes, which no library here writes."""
    first, second = samples[:, 0::2], samples[:, 1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 2).astype(np.uint8).tobytes()
    sides = {256: WIDTH, 257: HEIGHT, 278: HEIGHT}  # ImageWidth, ImageLength, RowsPerStrip
    kind = {258: 12, 259: 1, 262: 1, 277: 1}  # BitsPerSample, Compression, PhotometricInterpretation, SamplesPerPixel
    tags = sorted({**sides, **kind, 273: 8, 279: len(packed)}.items())  # StripOffsets, StripByteCounts
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = b"II*\0" + struct.pack("<I", 8 + len(packed))
    path.write_bytes(head + packed + struct.pack("<H", len(tags)) + directory + struct.pack("<I", 0))


def heic(path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    deep = pillow_heif.from_bytes("RGB;16", (WIDTH, HEIGHT), np.ascontiguousarray(RGB).tobytes())
    deep.save(path, quality=-1, chroma=444)


def avif(path: Path) -> None:
    options = [cv2.IMWRITE_AVIF_QUALITY, 100, cv2.IMWRITE_AVIF_DEPTH, 10]
    if not PIL.features.check("avif") or not cv2.imwrite(str(path), (RGB >> 6)[..., ::-1], options):
        pytest.skip("no AVIF here")


IN_PLANES = np.ascontiguousarray(np.moveaxis(RGB, 2, 0))
KEYED = np.dstack([RGB, np.where((RGB == RGB[0, 0]).all(2), 0, 65535)]).astype(np.uint16)
LOSSLESS = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000]
FILES = {  # how each is written, and what it holds
    "rgb.png": (lambda path: cv2.imwrite(str(path), RGB[..., ::-1]), RGB),
    "rgba.png": (lambda path: cv2.imwrite(str(path), BGRA), DEEP),
    "key.png": (lambda path: png(path, RGB, 2, RGB[0, 0]), KEYED),
    "rgb.ppm": (lambda path: pnm(path, RGB, 65535), RGB),
    "ten.ppm": (lambda path: pnm(path, RGB >> 6, 1023), (65535 / 1023 * (RGB >> 6)).round().astype(np.uint16)),
    "rgb.tif": (lambda path: cv2.imwrite(str(path), RGB[..., ::-1]), RGB),
    "rgba.tif": (lambda path: tiff(path, DEEP, extrasamples=["unassalpha"]), DEEP),
    "planes.tif": (lambda path: tiff(path, IN_PLANES, planarconfig="separate"), RGB),
    "packed planes.tif": (lambda path: tiff(path, IN_PLANES, planarconfig="separate", compression="zlib"), RGB),
    "rgb.jp2": (lambda path: cv2.imwrite(str(path), np.tile(RGB[..., ::-1], (3, 3, 1)), LOSSLESS), None),
    "ten.heic": (heic, RGB),
    "ten.avif": (avif, RGB),
}  # fmt: skip
WRONG = ("planes.tif", "rgb.jp2")  # of which Pillow reads another picture
ROUNDED = {"ten.heic": 400, "ten.avif": 400}  # of 65535: to ten bits, by way of other colors


@pytest.fixture(params=FILES)
def file(request, tmp_path):
    """A file, and what it holds; of one that is saved with losses, as the other library reads it."""
    write, held = FILES[request.param]
    path = tmp_path / request.param
    write(path)
    return path, cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1] if held is None else held


def refusal(given) -> str:
    with pytest.raises(ValueError) as caught:
        opened(given)
    return str(caught.value)


def follow(code: str, path: Path) -> object:
    names = {"cv2": cv2, "np": np, "PIL": PIL, "path": str(path)}
    names |= {name: pytest.importorskip(name) for name in ("tifffile", "pillow_heif") if name in code}
    return eval(code, names)


def test_colors_of_16_bits_are_refused_and_the_ways_to_read_them_are_right(file):
    path, held = file
    said, near = refusal(path), ROUNDED.get(path.name, 0)
    assert refusal(PIL.Image.open(path)) == said.replace(repr(str(path)), "`image`")
    assert re.search(r": The picture has colors of 1[06] bits, of which Pillow reads 8", said)
    example, eight = re.findall("`(.*?)`", said)
    source = opened(follow(example, path))
    assert np.abs(source.own.astype(int) - held[..., :3]).max() <= near
    assert not near or source.own.max() == 65535  # white is white
    assert (source.alpha is None) == (held.shape[2] == 3)
    assert source.alpha is None or np.array_equal(source.alpha, held[..., 3])
    shown = opened(follow(eight.replace("array", f"({example})"), path))
    assert np.abs(shown.own.astype(int) - held[..., :3] / 257).max() <= 1 + near / 257
    assert (shown.alpha is None) == (source.alpha is None)


GRAYS = {
    "16.pgm": (lambda path: pnm(path, GRAY, 65535), GRAY),
    "10.pgm": (lambda path: pnm(path, GRAY >> 6, 1023), 65535 / 1023 * (GRAY >> 6)),
    "12.tif": (lambda path: tiff_of_12_bits(path, GRAY >> 4), 65535 / 4095 * (GRAY >> 4)),
    "negative.tif": (lambda path: tiff(path, 65535 - GRAY, photometric="miniswhite"), GRAY),
    "packed negative.tif": (
        lambda path: tiff(path, 65535 - GRAY, photometric="miniswhite", compression="zlib"),
        GRAY,
    ),
}


@pytest.mark.parametrize("name", GRAYS)
def test_gray_that_pillow_gives_with_another_white_is_read_as_it_is_meant(name, tmp_path, recwarn):
    write, held = GRAYS[name]
    write(tmp_path / name)
    for given in (tmp_path / name, PIL.Image.open(tmp_path / name)):
        source = opened(given)
        assert np.abs(source.own[..., 0] - held).max() <= 1 and source.most == 65535
    assert np.abs(255 * read_cut_out(tmp_path / name)[0][0].numpy() - held / 257).max() < 0.1
    assert np.abs(255 * read_place(tmp_path / name) - held / 257).max() < 0.1
    assert np.abs(read_mask(tmp_path / name) - held / 257).max() < 1
    usual = np.asarray(in_usual_form(str(tmp_path / name)))
    assert usual.ndim == 2 and np.abs(usual - held / 257).max() < 1
    assert np.abs(np.asarray(readable(PIL.Image.open(tmp_path / name), "control_image")) - held / 257).max() < 1
    turned = PIL.Image.open(tmp_path / name)
    turned.getexif()[274] = 6  # Orientation: the sensor lay on its side
    assert np.abs(np.asarray(read_upright(turned)) - np.rot90(held, -1)).max() <= 1


def as_image(given: str | PIL.Image.Image) -> PIL.Image.Image:
    """Where no path is taken."""
    return PIL.Image.open(given) if isinstance(given, str) else given


PICTURE = PIL.Image.fromarray((RGB >> 9).astype(np.uint8))
DOORS = {
    "a reference": read_image,
    "a cut-out": read_cut_out,
    "a region": read_place,
    "a mask in a reference": lambda given: read_mask_in_reference(given, HEIGHT, WIDTH),
    "a mask of an edit": read_mask,
    "a hint": lambda given: read_strokes(opened(PICTURE), given),
    "a picture to repaint": list_images,
    "a mask to repaint": list_masks,
    "a control image": lambda given: readable(as_image(given), "control_image"),
    "a part of a control image": lambda given: crop_alike(as_image(given), (0, 0, 8, 8), (HEIGHT, WIDTH)),
}
OF_COLORS = ("a reference", "a cut-out", "a picture to repaint", "a control image")


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", WRONG)
def test_every_door_refuses_what_pillow_reads_wrong_and_takes_what_the_sentence_says(name, door, tmp_path):
    write, held = FILES[name]
    path = tmp_path / name
    write(path)
    for given in (str(path), PIL.Image.open(path)):
        with pytest.raises(ValueError) as caught:
            DOORS[door](given)
        said = str(caught.value)
        assert "The picture has colors of 16 bits, of which Pillow reads 8. Read it with another library" in said
        assert (repr(given) in said) == (isinstance(given, str) and "control image" not in door)
    if door in OF_COLORS:
        example, way = re.findall("`(.*?)`", said[said.index("Read it") :])
        array = follow(example, path)
        made = eval(way, {"PIL": PIL, "np": np, "array": array})
        assert np.abs(np.asarray(made) - array / 257).max() < 1
        DOORS[door](made)


@pytest.mark.parametrize("name", WRONG)
def test_training_leaves_out_what_pillow_reads_wrong(name, tmp_path):
    FILES[name][0](tmp_path / name)
    with pytest.raises(Unusable) as raised:
        decode(io.BytesIO((tmp_path / name).read_bytes()), 16)
    reason, detail = raised.value.args
    assert reason == "color mode" and re.search(
        "has colors of 16 bits.* It reads them wrong in files of this kind.$", detail
    )


def test_whole_numbers_of_unknown_range_are_brought_to_8_bits_as_the_sentence_says(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    signed = (GRAY >> 1).astype(np.int16) - 100
    tifffile.imwrite(tmp_path / "signed.tif", signed)
    image = PIL.Image.open(tmp_path / "signed.tif")
    said = refusal(image)
    assert "has the mode I. Convert it first" in said
    assert "with `x = np.asarray(image).clip(0)`" in said
    x = np.asarray(image).clip(0)
    made = opened(PIL.Image.fromarray((255 * (x / x.max())).astype("uint8")).convert("RGB"))
    assert np.abs(made.own[..., 0] - 255 * (signed.clip(0) / signed.max())).max() <= 1


def test_gray_of_16_bits_with_a_level_for_what_is_transparent(tmp_path):
    path = tmp_path / "key.png"
    png(path, GRAY, 0, GRAY[:1, 0])
    clear, image = GRAY == GRAY[0, 0], PIL.Image.open(path)
    assert has_alpha(image) and is_transparent(image)
    said = refusal(path)
    assert "one level that stands for transparent, and PIL has no alpha of 16 bits" in said
    x = np.asarray(image)
    array = np.dstack([x, x, x, 65535 * (x != image.info["transparency"])]).astype(np.uint16)
    assert "`np.dstack([x, x, x, 65535 * (x != image.info['transparency'])]).astype(np.uint16)`" in said
    assert np.array_equal(opened(array).alpha == 0, clear) and np.array_equal(opened(array).own[..., 0], GRAY)
    assert "`PIL.Image.fromarray(np.asarray(image))`" in said
    assert opened(PIL.Image.fromarray(x)).alpha is None
    rgb, visible = read_cut_out(path)  # of a reference what can be seen is read
    assert np.array_equal(visible[0].numpy() == 0, clear)
    assert np.abs(255 * rgb[0].numpy() - GRAY / 257)[~clear].max() < 1
    assert np.array_equal(read_one_mask(image, "The mask", is_cut_out=True) == 0, clear)  # the alpha, as of 8 bits


def test_gray_with_an_alpha_that_is_multiplied_already():
    pixels = np.dstack([GRAY >> 9, np.full_like(GRAY, 255)]).astype(np.uint8)
    pixels[:4] = 0
    image = PIL.Image.fromarray(pixels, "LA").convert("La")
    source = opened(image)
    assert np.array_equal(source.own[..., 0], pixels[..., 0]) and np.array_equal(source.alpha, pixels[..., 1])
    assert (read_cut_out(image)[1][0].numpy() == pixels[..., 1] / 255).all()


# -- the command line -----------------------------------------------------------------------------------------------------
def test_the_command_line_reads_in_8_bits_what_pillow_reads_right_and_says_so(file, tmp_path, capsys):
    path, held = file
    is_wrong = path.name in WRONG
    assert main(["denoise", str(path), "-o", str(tmp_path / "out.png")]) == 2
    said = capsys.readouterr().err
    remedy = "save it as PNG of 8 bits with a program that knows" if is_wrong else "--convert reads such pictures"
    assert f"'{path}': The picture has colors of 1" in said and remedy in said
    assert "cv2" not in said and "PIL." not in said and "np." not in said
    if is_wrong:
        with pytest.raises(ValueError, match="colors of 16 bits"):
            in_usual_form(str(path))
        return
    usual = in_usual_form(str(path))
    assert "is read in 8 bits as RGB" in capsys.readouterr().err
    near = 1 + ROUNDED.get(path.name, 0) / 257
    assert np.abs(np.asarray(usual).astype(int) - held[..., : len(usual.getbands())] / 257).max() <= near
    assert len(usual.getbands()) == 4 or usual.info.get("transparency") or held.shape[2] == 3


def test_gray_of_16_bits_with_a_level_for_what_is_transparent_is_read_in_8_when_told_to(tmp_path):
    png(tmp_path / "key.png", GRAY, 0, GRAY[:1, 0])
    usual = in_usual_form(str(tmp_path / "key.png"))
    assert usual.mode == "LA" and np.array_equal(np.asarray(usual)[..., 1] == 0, GRAY == GRAY[0, 0])


@pytest.mark.parametrize("flag", ["--texture", "--shape-mask", "--region"])
def test_the_command_line_refuses_references_that_pillow_reads_wrong(flag, tmp_path, capsys):
    wrong, good = tmp_path / "rgb.jp2", tmp_path / "good.png"
    FILES["rgb.jp2"][0](wrong)
    PIL.Image.fromarray(np.tile(RGB >> 8, (3, 3, 1)).astype(np.uint8)).save(good)
    given = {
        "--texture": ["--texture", str(wrong)],
        "--shape-mask": ["--shape", f"{good},mask={wrong}"],
        "--region": ["--texture", f"{good},region={wrong}"],
    }[flag]
    assert main(["compose", *given, "-o", str(tmp_path / "out.png")]) == 2
    said = capsys.readouterr().err
    remedy = "It reads them wrong in files of this kind: save it as PNG of 8 bits with a program that knows."
    assert f"{str(wrong)!r}: The picture has colors of 16 bits, of which Pillow reads 8. {remedy}" in said


def test_what_is_said_of_a_form_survives_a_process_and_no_cause_is_its_own():
    error = pickle.loads(pickle.dumps(UnreadForm("It is so.", "Do this.", "why", "it")))
    assert (str(error), error.obstacle, error.name) == ("It is so. Do this.", "why", "it")
    told = error.about("another")
    assert told is not error and str(told) == str(error)
    with pytest.raises(ValueError) as caught:
        read_shown(PIL.Image.new("CMYK", (32, 32)))
    assert caught.value.__cause__ is not caught.value


def test_pictures_of_an_ip_adapter_are_as_their_files_mean_them(tmp_path):
    gray = np.full((8, 8), 20000, np.uint16)
    white_is_0 = tmp_path / "white.tif"
    pytest.importorskip("tifffile").imwrite(white_is_0, 65535 - gray, photometric="miniswhite")
    ((shown,),) = as_shown([[PIL.Image.open(white_is_0)]])
    assert abs(np.asarray(shown.convert("L")).astype(int) - 20000 // 257).max() <= 1
    tensor = torch.zeros(1, 3, 8, 8)
    assert as_shown(tensor) is tensor and as_shown(None) is None
