"""Pictures and masks of every form through the named edits: what was not edited comes back bit for bit, in its own form."""

import inspect
import re

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFilter
import pytest
import torch

from mg_diffusion import MGInpaintPipeline, edits
from mg_diffusion.edits.inputs import seeds_of
from mg_diffusion.edits.named import named_edit
from mg_diffusion.edits.sources import opened
from mg_diffusion.encoder.reading import read_mask as read_mask_of_reference
from mg_diffusion.filling import fill
from mg_diffusion.octaves import build_detail_unet
from mg_diffusion.pipelines.pictures import list_masks


WIDTH, HEIGHT = 48, 40
COLORS = ["#0a9396", "#e9d8a6", "#001219"]
RNG = np.random.default_rng(5)
GRAY = np.linspace(20, 230, WIDTH)[None, :] + RNG.normal(0, 8, (HEIGHT, WIDTH))
COLOR = np.stack([GRAY, GRAY[:, ::-1], 0.5 * GRAY + 40], 2)
DEEP = (257 * COLOR).clip(0, 65535).astype(np.uint16)  # whose lower bits are no repetition of the upper
GRAY, COLOR = (one.round().clip(0, 255).astype(np.uint8) for one in (GRAY, COLOR))
TEXTURE = PIL.Image.fromarray(RNG.integers(0, 256, (64, 64), np.uint8)).convert("RGB")


def cut_out() -> PIL.Image.Image:
    """An alpha: a disc with a soft edge."""
    alpha = PIL.Image.new("L", (WIDTH, HEIGHT))
    draw = PIL.ImageDraw.Draw(alpha)
    draw.ellipse([7, 5, 39, 35], fill=128)
    draw.ellipse([9, 7, 37, 33], fill=255)
    return alpha


def with_alpha(image: PIL.Image.Image) -> PIL.Image.Image:
    image = image.copy()
    image.putalpha(cut_out())
    return image


def with_key(mode: str) -> PIL.Image.Image:
    """Of a mode in which a color stands for what is transparent."""
    pixels = COLOR.copy() if mode == "RGB" else GRAY.copy()
    pixels[:12] = 7
    image = PIL.Image.fromarray(pixels)
    image = image.quantize(32) if mode == "P" else image
    image.info["transparency"] = {"RGB": (7, 7, 7), "L": 7, "P": image.getpixel((0, 0))}[mode]
    return image


def deep_alpha() -> np.ndarray:
    return np.dstack([DEEP, np.asarray(cut_out()).astype(np.uint16) * 257])


SOURCES = {
    "RGB": PIL.Image.fromarray(COLOR),
    "L": PIL.Image.fromarray(GRAY),
    "1": PIL.Image.fromarray(GRAY > 120),
    "P": PIL.Image.fromarray(COLOR).quantize(64),
    "I;16": PIL.Image.fromarray(DEEP[..., 0]),
    "RGBA": with_alpha(PIL.Image.fromarray(COLOR)),
    "LA": with_alpha(PIL.Image.fromarray(GRAY)),
    "RGB with a key": with_key("RGB"),
    "L with a key": with_key("L"),
    "P with a key": with_key("P"),
    "uint8": COLOR,
    "uint16": DEEP,
    "uint16 gray": DEEP[..., 1],
    "uint16 of one channel": DEEP[..., 1:2],
    "uint16 and alpha": deep_alpha(),
    ">u2": DEEP.astype(">u2"),
}  # fmt: skip
IN_COLOR = ("recolor", "reshape")
EDITS = ("recolor", "retexture", "remove", "denoise", "enhance", "reshape")


@pytest.fixture(scope="module")
def pipe(model):
    pipeline = MGInpaintPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def restorer(pipe):
    """The same with a detail network that does something."""
    unet = build_detail_unet((16, 32)).eval()
    torch.manual_seed(1)
    torch.nn.init.normal_(unet.conv_out.weight, std=0.02)
    pipeline = MGInpaintPipeline(**{**pipe.components, "mg_detail": unet})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def edit(pipe, restorer):
    """edit(name, image, mask) with the references and the pipeline that the edit needs."""

    def made(name, image, mask=None, **options):
        references = {"recolor": {"color": COLORS}, "reshape": {"color": COLORS}, "retexture": {"texture": TEXTURE}}
        if name == "reshape":
            options = {"num_inference_steps": 2, "generator": torch.Generator().manual_seed(0), **options}
        added = options.pop("added", (0, 0, 0, 0))
        by = restorer if name in ("denoise", "enhance", "enlarge") else pipe
        (result,) = named_edit(name, by, image, mask, references.get(name, {}), added, **options)
        return result

    return made


def samples_of(picture) -> np.ndarray:
    """(H, W, C) of whatever it is, gray as it is."""
    if isinstance(picture, PIL.Image.Image):
        if "transparency" in picture.info or picture.mode == "P":
            is_gray = picture.mode == "L"
            picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
            return np.asarray(picture)[..., [0, 3]] if is_gray else np.asarray(picture)
        picture = picture.convert("L") if picture.mode == "1" else picture
    array = np.asarray(picture)
    return array[..., None] if array.ndim == 2 else array


def in_color(samples: np.ndarray) -> np.ndarray:
    count = samples.shape[2]
    return samples if count > 2 else samples[..., [0, 0, 0] + [1] * (count - 1)]


def box() -> PIL.Image.Image:
    mask = PIL.Image.new("L", (WIDTH, HEIGHT))
    mask.paste(255, (16, 12, 30, 24))
    return mask


@pytest.mark.parametrize("form", SOURCES)
@pytest.mark.parametrize("name", EDITS)
def test_outside_the_mask_every_bit_and_the_form_stay(edit, name, form):
    source = SOURCES[form]
    if form == "I;16" and name in IN_COLOR:
        with pytest.raises(ValueError, match=f"`{name}` makes colors.*np.asarray.image.*8 bits first"):
            edit(name, source, box())
        assert edit(name, np.asarray(source), box()).dtype == np.uint16  # as the message says
        return
    made, before = edit(name, source, box()), samples_of(source)
    before = in_color(before) if name in IN_COLOR else before
    after, inside = samples_of(made), np.asarray(box()) > 0
    assert isinstance(made, type(source)) or isinstance(source, PIL.Image.Image)
    assert after.dtype == before.dtype.newbyteorder("=") and after.shape == before.shape
    assert np.array_equal(after[~inside], before[~inside])
    differs = (after != before)[inside]
    assert differs.any(1).mean() > (0.1 if form == "1" else 0.5)  # black and white may stay so
    if before.shape[2] in (2, 4):
        assert not differs[:, -1].any()  # the alpha
    if isinstance(source, np.ndarray):
        assert made.ndim == source.ndim or name in IN_COLOR


@pytest.mark.parametrize("form", ["RGBA", "LA", "P with a key", "RGB with a key", "uint16 and alpha"])
@pytest.mark.parametrize("name", ["recolor", "retexture", "denoise", "enhance", "reshape"])
def test_without_a_mask_the_alpha_is_one(edit, name, form):
    source = SOURCES[form]
    before, made = samples_of(source), edit(name, source)
    before, after = in_color(before) if name in IN_COLOR else before, samples_of(made)
    assert np.array_equal(after[..., -1], before[..., -1])
    hidden = before[..., -1] == 0
    assert np.array_equal(after[hidden], before[hidden])
    assert (after != before)[~hidden].any(1).mean() > 0.5


@pytest.mark.parametrize("name", ["recolor", "retexture", "denoise", "enhance", "outpaint", "enlarge", "reshape"])
def test_what_is_transparent_is_not_read(edit, name):
    """Whatever color is hidden there, what can be seen is the same."""
    options = {"added": (6, 0, 0, 4)} if name == "outpaint" else {}
    seen = []
    for hidden in (0, 255):
        pixels = np.array(SOURCES["RGBA"])
        pixels[pixels[..., 3] == 0, :3] = hidden
        seen.append(np.asarray(edit(name, PIL.Image.fromarray(pixels), **options)))
    visible = seen[0][..., 3] > 0
    if name == "enlarge":  # the interpolated alpha reaches beyond
        visible = np.kron(np.asarray(SOURCES["RGBA"])[..., 3] > 0, np.ones((2, 2), bool))
    assert np.array_equal(seen[0][visible], seen[1][visible])


def test_removing_reads_nothing_transparent_and_fills_what_is_missing(edit):
    pixels = np.array(SOURCES["RGBA"])
    pixels[..., 3] = 255
    pixels[10:18, 20:30] = (255, 0, 255, 0)  # a hole, with a color that nothing else has
    pixels[20, 5] = (9, 9, 9, 77)
    filled = np.asarray(edit("remove", PIL.Image.fromarray(pixels)))
    opaque = pixels[..., 3] == 255
    assert np.array_equal(filled[opaque], pixels[opaque]) and (filled[..., 3] == 255).all()
    assert np.abs(filled[10:18, 20:30, :3].astype(int) - COLOR[10:18, 20:30]).mean() < 40
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[18:24, 20:30] = True  # beside the hole
    made = np.asarray(edit("remove", PIL.Image.fromarray(pixels), mask))
    assert np.array_equal(made[~mask], pixels[~mask]) and np.array_equal(made[..., 3], pixels[..., 3])
    assert np.abs(made[mask].astype(int)[:, :3] - COLOR[mask]).mean() < 40
    pixels[:, 32:, 3] = 0  # what goes on there lends nothing either
    made = np.asarray(edit("remove", PIL.Image.fromarray(pixels), mask, generator=torch.Generator().manual_seed(0)))
    seed, hidden = seeds_of(1, torch.Generator().manual_seed(0))[0], pixels[..., 3] == 0
    smooth = opened(PIL.Image.fromarray(pixels)).pixels
    assert np.array_equal(made[mask][:, :3], fill(smooth, mask, None, seed, unknown=hidden)[mask])
    assert not np.array_equal(made[mask][:, :3], fill(smooth, mask, None, seed)[mask])


def test_an_alpha_is_enlarged_along(edit):
    for form in ("RGBA", "LA"):
        source = SOURCES[form]
        large = edit("enlarge", source)
        assert large.mode == form and large.size == (2 * WIDTH, 2 * HEIGHT)
        wanted = cut_out().resize(large.size, PIL.Image.Resampling.BICUBIC)
        assert np.array_equal(large.getchannel("A"), wanted)
        wide = edit("outpaint", source, added=(8, 0, 0, 6))
        assert wide.mode == form and wide.size == (WIDTH + 8, HEIGHT + 6)
        assert np.array_equal(np.asarray(wide)[:HEIGHT, 8:], source)
        assert not np.asarray(wide)[:, :8, -1].any()
    framed = np.array(SOURCES["RGBA"])
    framed[..., 3] = 0
    framed[10:30, :20, 3] = 200  # the frame cuts through it
    wide = np.asarray(edit("outpaint", framed, added=(8, 0, 0, 0)))
    assert (wide[10:30, :8, 3] == 200).all() and not wide[:10, :8, 3].any()


@pytest.mark.parametrize("form", ["L", "I;16", "uint16", "uint16 gray"])
def test_larger_pictures_have_the_form_too(edit, form):
    source = SOURCES[form]
    large, wide = edit("enlarge", source), edit("outpaint", source, added=(8, 0, 0, 6))
    before, after, around = samples_of(source), samples_of(large), samples_of(wide)
    assert after.dtype == around.dtype == before.dtype and after.shape == (2 * HEIGHT, 2 * WIDTH, before.shape[2])
    assert np.array_equal(around[:HEIGHT, 8:], before)
    for result in (after, samples_of(edit("enlarge", source, strength=0.0))):
        small = result.reshape(HEIGHT, 2, WIDTH, 2, -1).mean((1, 3))
        assert np.abs(small - before).mean() < 0.08 * np.iinfo(before.dtype).max


@pytest.mark.parametrize("name", ["recolor", "retexture", "denoise"])
def test_16_bits_are_computed_as_16_bits(edit, name):
    """Inside the mask, too: more values than 8 bits have, and about what 8 bits give."""
    deep, plain = edit(name, DEEP), edit(name, (DEEP / 257).round().astype(np.uint8))
    assert len(np.unique(deep)) > 1000
    assert np.abs(deep / 257 - plain).mean() < 1.5


@pytest.mark.parametrize("name", ["recolor", "retexture", "denoise", "enhance"])
@pytest.mark.parametrize("form", ["L", "RGBA", "uint16 and alpha", "uint16 gray"])
def test_strength_0_is_the_picture(edit, name, form):
    scale = {"strength": 0} if name in ("denoise", "enhance") else {"granularity_scale": 0}
    before = samples_of(SOURCES[form])
    before = in_color(before) if name == "recolor" else before
    assert np.array_equal(samples_of(edit(name, SOURCES[form], **scale)), before)


def test_gray_of_a_mask_counts_in_part(edit):
    moved = []
    for level in (64, 255):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[10:30, 10:30] = level
        for name in ("recolor", "retexture", "denoise", "enhance", "reshape"):
            made = samples_of(edit(name, SOURCES["RGB"], mask)).astype(int)
            moved.append(np.abs(made - COLOR)[10:30, 10:30].mean())
    for little, much in zip(moved[:5], moved[5:], strict=True):
        assert 0.1 * much < little < 0.45 * much


# -- masks ----------------------------------------------------------------------------------------------------------------
WHITE = np.asarray(box()) > 0
SOFT = np.linspace(0, 1, 24).reshape(4, 6)
FORMS = {
    "1": PIL.Image.fromarray(WHITE),
    "L": box(),
    "L of 0 and 1": PIL.Image.fromarray(WHITE.astype(np.uint8)),
    "P": box().quantize(2),
    "RGB": box().convert("RGB"),
    "RGBA, opaque": box().convert("RGBA"),
    "alpha": PIL.Image.merge("RGBA", [PIL.Image.new("L", box().size, 40)] * 3 + [box()]),
    "LA": PIL.Image.merge("LA", [PIL.Image.new("L", box().size), box()]),
    "I;16": PIL.Image.fromarray(WHITE.astype(np.uint16) * 65535),
    "I;16 of 0 and 255": PIL.Image.fromarray(WHITE.astype(np.uint16) * 255),
    "F": PIL.Image.fromarray(WHITE.astype(np.float32)),
    "bool": WHITE,
    "0 and 1": WHITE.astype(np.int64),
    "0 and 255": WHITE.astype(np.int32) * 255,
    "uint16": WHITE.astype(np.uint16) * 65535,
    "float": WHITE.astype(np.float64),
    "float of 0 and 255": 255.0 * WHITE,
    "a channel behind": WHITE[..., None],
    "a channel before": WHITE[None],
    "torch": torch.from_numpy(WHITE),
    "torch, half": torch.from_numpy(WHITE).bfloat16()[None],
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_masks_of_any_form_are_the_same(edit, form):
    assert np.array_equal(edits.read_mask(FORMS[form], (WIDTH, HEIGHT)), 255 * WHITE.astype(np.uint8))
    made = samples_of(edit("recolor", SOURCES["RGB"], FORMS[form]))
    assert np.array_equal(made, samples_of(edit("recolor", SOURCES["RGB"], box())))


@pytest.mark.parametrize("scale", [np.float32(1), 255, 65535])
def test_gray_levels_of_masks(scale):
    given = (SOFT * scale).astype({1: np.float32, 255: np.uint8, 65535: np.uint16}[int(scale)])
    assert np.abs(edits.read_mask(given).astype(int) - 255 * SOFT).max() <= 1


def image_of(mode: str) -> PIL.Image.Image:
    return PIL.Image.new(mode, (WIDTH, HEIGHT))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (image_of("L"), "all black, so nothing would be edited. Paint white"),
        (np.zeros((HEIGHT, WIDTH), bool), "all black"),
        (image_of("RGBA"), "all black"),
        (image_of("CMYK"), "has the mode CMYK.*convert..RGB."),
        (box().resize((8, 9)), r"size of the picture, \(48, 40\), got \(8, 9\).*nearest-neighbor"),
        (np.ones((HEIGHT, WIDTH, 2)), r"one channel, .height, width., got the shape \(40, 48, 2\)"),
        (np.full((HEIGHT, WIDTH), np.nan), "from nan to nan"),
        (np.full((HEIGHT, WIDTH), -1), "from -1 to -1"),
        (np.full((HEIGHT, WIDTH), 7.5), r"lies in \[0, 1\], got up to 7.5. Divide it"),
        (np.full((HEIGHT, WIDTH), 200, np.uint16), "255 is black there.*astype.np.uint8."),
        (np.full((HEIGHT, WIDTH), 1000), "values up to 1000 of int64. Divide it"),
        ("nosuch.png", "`mask_image` cannot be read from 'nosuch.png'"),
        ([1, 2], "torch array of numbers, got list"),
    ],
)
def test_every_error_about_a_mask_says_what_white_is(edit, mask, message):
    with pytest.raises(ValueError, match=message + r".*White is edited\.$"):
        edit("recolor", SOURCES["RGB"], mask)


@pytest.mark.parametrize(
    ("name", "form", "options", "message"),
    [
        ("remove", "RGB", {}, "`remove` needs a mask: the picture has no alpha.*Pass `mask_image` .`--mask`.. White is edited"),
        ("remove", PIL.Image.new("RGBA", (32, 32), "red"), {}, "needs a mask: nothing in the picture is transparent"),
        ("reshape", "RGB", {}, "`reshape` needs a mask, or a picture that is transparent.*White is edited"),
        ("reshape", "RGB", {"output_type": "np"}, "`output_type` 'np'. Leave it out"),
        ("recolor", np.zeros((9, 40, 40, 3), np.uint8), {}, r"\(height, width, 4\), got \(9, 40, 40, 3\)"),
        ("recolor", np.zeros((40, 40), np.int64), {}, "uint8 or uint16, got int64"),
        ("recolor", PIL.Image.new("CMYK", (40, 40)), {}, "has the mode CMYK.*convert..RGB"),
        ("recolor", torch.zeros(3, 40, 40), {}, "a path or a numpy array of 8 or 16 bits, got Tensor"),
        *[
            (name, PIL.Image.new("RGBA", (32, 32)), {}, "wholly transparent, so there is nothing to edit.*without its alpha")
            for name in ("recolor", "retexture", "remove", "outpaint", "denoise", "enlarge", "reshape", "variation")
        ],
    ],
)  # fmt: skip
def test_what_cannot_be_edited_is_refused(edit, name, form, options, message):
    source = SOURCES[form] if isinstance(form, str) else form
    with pytest.raises(ValueError, match=message):
        edit(name, source, **options)


COLORED = {"red": "#ff0000", "green": "#00ff00", "blue": "#0000ff"}


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
@pytest.mark.parametrize("color", COLORED)
def test_colored_masks_are_refused_wherever_masks_are_read_and_the_remedies_work(color, mode):
    mask = PIL.Image.new("RGB", (WIDTH, HEIGHT))
    mask.paste(color if color != "green" else "lime", (8, 8, 32, 32))
    mask = mask.convert(mode, palette=PIL.Image.Palette.ADAPTIVE)
    readers = (edits.read_mask, list_masks, lambda one: read_mask_of_reference(one, HEIGHT, WIDTH))
    for read in readers:
        with pytest.raises(ValueError, match=f"black, white or gray, got colors such as {COLORED[color]}") as refused:
            read(mask)
        remedies = re.findall(r"`(\S+\(.*?)`", str(refused.value))
        assert len(remedies) == 2
        for remedy in remedies:
            meant = eval(remedy, {"np": np, "mask": mask})
            assert (np.asarray(read(meant)[0] if read is list_masks else read(meant)).squeeze() > 0).sum() == 24 * 24


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize("color", ["#ff0000", "#400000", "#0000ff", "#5aa0dc", "#ffff00"])
def test_the_remedies_of_colored_masks_work_for_jpeg_too(tmp_path, color, quality, subsampling):
    """Where black is not quite black, and no color is the same everywhere: off by what JPEG blurs at the edge alone."""
    shape = PIL.Image.new("L", (128, 96))
    PIL.ImageDraw.Draw(shape).ellipse((20, 16, 90, 80), fill=255)
    PIL.Image.composite(PIL.Image.new("RGB", shape.size, color), PIL.Image.new("RGB", shape.size), shape).save(
        tmp_path / "mask.jpg", quality=quality, subsampling=subsampling
    )
    mask, inside = PIL.Image.open(tmp_path / "mask.jpg"), np.asarray(shape) > 0
    with pytest.raises(ValueError, match="black, white or gray, got colors such as") as refused:
        edits.read_mask(mask)
    near = [np.asarray(shape.filter(kind(5))) > 0 for kind in (PIL.ImageFilter.MinFilter, PIL.ImageFilter.MaxFilter)]
    for remedy in re.findall(r"`(\S+\(.*?)`", str(refused.value)):
        found = edits.read_mask(eval(remedy, {"np": np, "mask": mask})) > 0
        far = (near[0] & ~found) | (found & ~near[1])
        assert far.sum() <= 3 and (found != inside).sum() < 0.05 * inside.sum()


def test_the_remedies_tell_two_colors_of_a_jpeg_apart(tmp_path):
    mask = PIL.Image.new("RGB", (128, 64))
    mask.paste("red", (8, 8, 56, 56))
    mask.paste("blue", (72, 8, 120, 40))
    mask.save(tmp_path / "mask.jpg", quality=90)
    mask = PIL.Image.open(tmp_path / "mask.jpg")
    with pytest.raises(ValueError, match="such as #f[de]0[01]00") as refused:
        edits.read_mask(mask)
    both, red = (eval(one, {"np": np, "mask": mask}) for one in re.findall(r"`(\S+\(.*?)`", str(refused.value)))
    assert both[12:52, 12:52].all() and both[12:36, 76:116].all() and not both[:, 60:68].any()
    assert red[12:52, 12:52].all() and not red[:, 60:].any()


def test_a_gray_mask_is_read_though_jpeg_tints_it(tmp_path):
    tinted = np.asarray(box().convert("RGB")).astype(int) + [0, -6, 5]
    PIL.Image.fromarray(tinted.clip(0, 255).astype(np.uint8)).save(tmp_path / "mask.jpg", quality=90)
    assert (edits.read_mask(tmp_path / "mask.jpg") > 127).sum() == (np.asarray(box()) > 0).sum()


def test_a_mask_over_what_is_transparent_is_refused_and_its_remedy_works(edit):
    corner = np.zeros((HEIGHT, WIDTH), bool)
    corner[:4, :4] = True
    with pytest.raises(ValueError, match="only what is transparent.*`image.convert..RGB..`. White is edited"):
        edit("recolor", SOURCES["RGBA"], corner)
    assert edit("recolor", SOURCES["RGBA"].convert("RGB"), corner).mode == "RGB"
    wholly = PIL.Image.fromarray(np.dstack([COLOR, np.zeros_like(GRAY)]))
    assert edit("recolor", wholly.convert("RGB")).mode == "RGB"


def test_colors_of_16_bits_in_a_file_are_not_cut_off(edit, tmp_path):
    cv2 = pytest.importorskip("cv2")
    path = str(tmp_path / "deep.png")
    cv2.imwrite(path, DEEP[..., ::-1])
    for given in (path, PIL.Image.open(path)):
        with pytest.raises(ValueError, match="colors of 16 bits, of which Pillow reads 8.*cv2.IMREAD_UNCHANGED"):
            edit("denoise", given, box())
    made = edit("denoise", cv2.imread(path, cv2.IMREAD_UNCHANGED)[..., ::-1], box())
    assert np.array_equal(made[~WHITE], DEEP[~WHITE])
    assert edit("denoise", PIL.Image.open(path).convert("RGB"), box()).mode == "RGB"
    gray = tmp_path / "gray.png"
    SOURCES["I;16"].save(gray)
    assert np.array_equal(samples_of(edit("denoise", gray, box()))[~WHITE], DEEP[~WHITE][:, :1])


# -- transparent references -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("granularity", ["color", "texture", "shape"])
def test_of_a_transparent_reference_only_what_can_be_seen_is_read(pipe, granularity):
    encoded = []
    for hidden in (0, 255):
        pixels = np.array(SOURCES["RGBA"])
        pixels[pixels[..., 3] <= 127, :3] = hidden
        encoded.append(pipe.mg_encoder.encode({granularity: PIL.Image.fromarray(pixels)}, (32, 32))[granularity][0])
    whole = pipe.mg_encoder.encode({granularity: SOURCES["RGB"]}, (32, 32))[granularity][0]
    assert all(torch.equal(encoded[0][key], encoded[1][key]) for key in encoded[0])
    assert not torch.allclose(encoded[0]["vector"], whole["vector"])


def test_a_mask_of_a_transparent_reference_lies_in_what_can_be_seen(pipe):
    cut, corner = SOURCES["RGBA"], np.zeros((HEIGHT, WIDTH), bool)
    corner[:4, :4] = True
    with pytest.raises(ValueError, match="selects only what is transparent"):
        pipe.mg_encoder.encode({"color": {"image": cut, "mask": corner}}, (32, 32))
    with pytest.raises(ValueError, match="transparent, so there is nothing to read.*image.convert"):
        pipe.mg_encoder.encode({"color": PIL.Image.new("RGBA", (32, 32))}, (32, 32))


def test_a_variation_of_a_cut_out_is_an_opaque_picture(pipe):
    assert "mask_image" not in inspect.signature(edits.variation).parameters
    made = []
    for hidden in (0, 255):
        pixels = np.array(SOURCES["RGBA"])
        pixels[pixels[..., 3] == 0, :3] = hidden
        options = {"num_inference_steps": 2, "generator": torch.Generator().manual_seed(0)}
        (one,) = edits.variation(pipe, PIL.Image.fromarray(pixels), **options)
        made.append(np.asarray(one))
    assert one.mode == "RGB" and np.array_equal(*made)


def test_a_matrix_is_an_array_and_a_masked_array_is_refused(shipped):
    gray = np.random.default_rng(0).integers(0, 256, (32, 40), np.uint8)
    (plain,), (matrix,) = (edits.recolor(shipped, one, ["#4a6fa5"]) for one in (gray, np.matrix(gray)))
    assert np.array_equal(plain, matrix)
    with pytest.raises(ValueError, match="must not be masked"):
        edits.denoise(shipped, np.ma.masked_array(gray, gray > 128))


@pytest.mark.parametrize("strength", [np.float32(0.5), np.float64(0.5)])
def test_numbers_of_numpy_are_strengths(shipped, strength):
    gray = np.random.default_rng(0).integers(0, 256, (32, 40), np.uint8)
    made = [edits.recolor(shipped, gray, ["#4a6fa5"], granularity_scale=one)[0] for one in (strength, 0.5)]
    assert np.array_equal(*made)


def test_a_color_that_cannot_be_seen_is_told_without_a_mask(shipped):
    picture = np.full((32, 32, 4), 255, np.uint8)
    picture[:, :16] = (128, 128, 128, 0)
    with pytest.raises(ValueError, match=r"within|can be seen"):
        edits.recolor(shipped, picture, ["#4a6fa5"], select="#808080", tolerance=2)
