"""Files of more bits than Pillow reads: refused, and what the sentence says to do gives the picture that the file holds."""

import re
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from mg_diffusion.cli import main
from mg_diffusion.cli.references import in_usual_form
from mg_diffusion.edits.sources import opened
from mg_diffusion.encoder.reading import read_cut_out
from mg_diffusion.masks import read_one_mask
from mg_diffusion.pictures import has_alpha, is_transparent


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
    tifffile.imwrite(path, samples, photometric="rgb", **options)


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
}  # fmt: skip


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
    if "tifffile" in code:
        names["tifffile"] = pytest.importorskip("tifffile")
    return eval(code, names)


def test_colors_of_16_bits_are_refused_and_the_ways_to_read_them_are_right(file):
    path, held = file
    said = refusal(path)
    assert refusal(PIL.Image.open(path)) == said
    assert re.search(r"has colors of 1[06] bits, of which Pillow reads 8", said)
    example, eight = re.findall("`(.*?)`", said)
    source = opened(follow(example, path))
    assert np.array_equal(source.own, held[..., :3])
    assert (source.alpha is None) == (held.shape[2] == 3)
    assert source.alpha is None or np.array_equal(source.alpha, held[..., 3])
    shown = opened(follow(eight.replace("array", f"({example})"), path))
    assert np.abs(shown.own.astype(int) - held[..., :3] / 257).max() <= 1
    assert (shown.alpha is None) == (source.alpha is None)


@pytest.mark.parametrize("most", [65535, 1023])
def test_gray_of_16_bits_that_pillow_reads_as_32(tmp_path, most):
    samples = GRAY if most == 65535 else GRAY >> 6
    pnm(tmp_path / "gray.pgm", samples, most)
    said = refusal(tmp_path / "gray.pgm")
    assert "gray of 16 bits, which Pillow reads as 32" in said
    source = opened(follow(re.findall("`(.*?)`", said)[0], tmp_path / "gray.pgm"))
    assert np.abs(source.own[..., 0].astype(int) - samples * (65535 / most)).max() <= 1 and source.most == 65535


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
    is_wrong = path.suffix == ".jp2" or "planes" in path.name
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
    assert np.abs(np.asarray(usual).astype(int) - held[..., : len(usual.getbands())] / 257).max() <= 1
    assert len(usual.getbands()) == 4 or usual.info.get("transparency") or held.shape[2] == 3


@pytest.mark.parametrize("most", [65535, 1023])
def test_gray_of_16_bits_is_read_in_8_when_told_to(tmp_path, most):
    pnm(tmp_path / "gray.pgm", GRAY if most == 65535 else GRAY >> 6, most)
    usual = in_usual_form(str(tmp_path / "gray.pgm"))
    assert usual.mode == "L" and np.abs(np.asarray(usual) - GRAY / 257).max() <= (1 if most == 65535 else 2)
    png(tmp_path / "key.png", GRAY, 0, GRAY[:1, 0])
    usual = in_usual_form(str(tmp_path / "key.png"))
    assert usual.mode == "LA" and np.array_equal(np.asarray(usual)[..., 1] == 0, GRAY == GRAY[0, 0])
