"""Granularity cards: what one granularity of a reference is to an encoder, kept without the picture."""

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from small_disk import file_size_limit
from tiny_repository import SIZE, draw

from mg_diffusion import MGEncoder, MGPipeline
from mg_diffusion.cli import main
from mg_diffusion.encoder.granularity_cards import read_card
from mg_diffusion.granularities import GRANULARITIES
from mg_diffusion.recipe import describe_file


@pytest.fixture(scope="module")
def pipe(model):
    pipeline = MGPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    return [str(draw(folder / f"{seed}.png", seed)) for seed in range(3)]


@pytest.fixture
def card(pipe, files, tmp_path):
    """card(name, reference) writes a card and returns its path."""

    def write(name, reference=files[0], encoder=pipe.mg_encoder, file="one.safetensors"):
        encoder.save_card(tmp_path / file, name, reference)
        return str(tmp_path / file)

    return write


def generate(pipe, references, **options):
    made = pipe(
        reference_image=references,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
        **options,
    )
    return made.images[0]


@pytest.mark.parametrize("name", GRANULARITIES)
def test_a_card_gives_the_output_of_its_picture_bit_for_bit(pipe, files, card, name):
    others = {other: files[1] for other in GRANULARITIES if other != name}
    of_picture = generate(pipe, {**others, name: files[0]})
    assert np.array_equal(generate(pipe, {**others, name: card(name)}), of_picture)
    assert not np.array_equal(generate(pipe, {**others, name: files[2]}), of_picture)


def test_a_shape_card_fits_outputs_of_any_aspect(pipe, files, card):
    size = {"height": SIZE, "width": 2 * SIZE}
    of_picture = generate(pipe, {"shape": files[0]}, **size)
    assert np.array_equal(generate(pipe, {"shape": card("shape")}, **size), of_picture)


def test_a_palette_and_a_masked_picture_can_be_kept(pipe, files, card):
    palette = ["#ff8800:3", "#224466"]
    assert np.array_equal(generate(pipe, {"color": card("color", palette)}), generate(pipe, {"color": palette}))
    with PIL.Image.open(files[0]) as picture:
        mask = np.zeros((picture.height, picture.width), np.uint8)
    mask[:, : mask.shape[1] // 2] = 255
    masked = {"image": files[0], "mask": mask}
    assert np.array_equal(generate(pipe, {"color": card("color", masked)}), generate(pipe, {"color": masked}))


@pytest.mark.parametrize("name", GRANULARITIES)
def test_two_cards_mix_by_weight(pipe, files, card, name):
    encoder, size = pipe.mg_encoder, (SIZE, SIZE)
    one, other = card(name), card(name, files[1], file="other.safetensors")
    mixed = encoder.encode({name: [{"image": one, "weight": 1}, {"image": other, "weight": 3}]}, size)[name][0][
        "vector"
    ]
    ends = [encoder.encode({name: path}, size)[name][0]["vector"] for path in (one, other)]
    torch.testing.assert_close(mixed, 0.25 * ends[0] + 0.75 * ends[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name, most", [("color", 16_000), ("texture", 400_000), ("shape", 640_000)])
def test_a_card_is_small_and_holds_no_picture(files, tmp_path, name, most):
    MGEncoder().save_card(tmp_path / "a.safetensors", name, files[0])
    metadata, tensors = read_card(tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").stat().st_size < most
    assert metadata["source"] == describe_file(files[0])["sha256"]
    kept = {
        "color": {"vector", "palette"},
        "texture": {"vector", "tiles", "layout_tiles"},
        "shape": {"edges", "structure", "light", "layout_structure", "layout_shading", "layout_light"},
    }
    assert set(tensors) == kept[name]


def test_a_card_of_other_weights_or_settings_is_refused(pipe, files, card):
    path = card("texture")
    torch.manual_seed(5)
    other = MGEncoder(**{key: pipe.mg_encoder.config[key] for key in ("sample_size", "num_tiles", "shape_backbone")})
    with pytest.raises(ValueError, match="made by another encoder.*SHA-256 [0-9a-f]{12}.*mg-diffusion encode"):
        other.encode({"texture": path}, (SIZE, SIZE))
    assert other.fingerprint("texture") != other.fingerprint("color")
    stored = other.half()  # as weights are shipped: it is the same encoder in whatever precision they are loaded
    prints = {
        dtype: stored.to(dtype).fingerprint("texture") for dtype in (torch.float16, torch.float32, torch.bfloat16)
    }
    assert len(set(prints.values())) == 1


def test_what_is_no_fitting_card_is_refused(pipe, files, card, tmp_path):
    encode = pipe.mg_encoder.encode
    with pytest.raises(ValueError, match="is a color card; it cannot lend its shape"):
        encode({"shape": card("color")}, (SIZE, SIZE))
    with pytest.raises(ValueError, match="takes a weight and a region, but no mask: it holds no picture"):
        encode({"color": {"image": card("color"), "mask": np.ones((4, 4))}}, (SIZE, SIZE))
    with pytest.raises(ValueError, match="weight must be a positive number"):
        encode({"color": {"image": card("color"), "weight": -1}}, (SIZE, SIZE))
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    for file, message in (
        ("torn", "no readable granularity card"),
        ("nosuch", "no readable granularity card"),
        ("foreign", "is no granularity card"),
    ):
        with pytest.raises(ValueError, match=message):
            encode({"color": tmp_path / f"{file}.safetensors"}, (SIZE, SIZE))
    with pytest.raises(ValueError, match="is a card already"):
        pipe.mg_encoder.save_card(tmp_path / "a.safetensors", "color", card("color"))
    with pytest.raises(ValueError, match="no weight or region of its own"):
        pipe.mg_encoder.save_card(tmp_path / "a.safetensors", "color", {"image": files[0], "weight": 2})
    with pytest.raises(ValueError, match="There is no folder"):
        pipe.mg_encoder.save_card(tmp_path / "nosuch" / "a.safetensors", "color", files[0])
    assert torch.equal(
        *(
            encode({"color": one}, (SIZE, SIZE))["color"][0]["vector"]
            for one in (card("color"), {"image": card("color"), "mask": None})
        )
    )
    for path, name, message in (
        ("a.png", "color", "is a .safetensors file"),
        ("a.safetensors", "hue", "Unknown granularity 'hue'"),
        ("a.safetensors", "texture", "Hex colors describe a palette"),
    ):
        with pytest.raises(ValueError, match=message):
            pipe.mg_encoder.save_card(tmp_path / path, name, ["#ff8800"])
    assert not (tmp_path / "a.safetensors").exists()
    with pytest.raises(ValueError, match="is a .safetensors file, got None"):
        pipe.mg_encoder.save_card(None, "color", ["#ff8800"])


CHANGES = [
    (
        "color",
        lambda kept: kept.update(vector=kept["vector"] * torch.nan),
        "numbers that no picture gives, in `vector`",
    ),
    ("color", lambda kept: kept.update(palette=kept["palette"] + 2e4), "numbers that no picture gives, in `palette`"),
    ("color", lambda kept: kept.update(vector=kept["vector"][:, :5].clone()), "`vector` must be .*, and is .1, 5."),
    ("color", lambda kept: kept.update(vector=kept["vector"].int()), "`vector` must be .*torch.int32"),
    ("color", lambda kept: kept.update(more=torch.zeros(1)), "more than a card of this model holds: 'more'"),
    ("texture", lambda kept: kept.pop("vector"), "`vector` is missing"),
    ("texture", lambda kept: kept.update(tiles=kept["tiles"].repeat(2, 1, 1, 1)), "`tiles` must be .1, "),
    (
        "texture",
        lambda kept: kept.update(layout_tiles=kept["layout_tiles"] * torch.inf),
        "numbers .* in `layout_tiles`",
    ),
    ("shape", lambda kept: kept.pop("edges"), "`edges` is missing"),
    ("shape", lambda kept: kept.pop("layout_structure"), "`layout_structure` is missing"),
    ("shape", lambda kept: kept.update(edges=torch.zeros(1, 1, 0, 8)), "`edges` must be"),
]


@pytest.mark.parametrize(("name", "change", "said"), CHANGES, ids=[str(number) for number in range(len(CHANGES))])
def test_a_card_that_does_not_hold_what_cards_hold_is_refused(pipe, card, name, change, said):
    path = card(name)
    with safe_open(path, "pt") as opened:
        metadata = opened.metadata()
    kept = dict(read_card(path)[1])
    change(kept)
    save_file(kept, path, metadata)
    with pytest.raises(ValueError, match=f"The card '.*one.safetensors' .*{said}.*Make it anew"):
        generate(pipe, {name: path})


def test_cards_of_older_versions_without_layout_and_light_are_taken(pipe, card):
    path = card("shape")
    with safe_open(path, "pt") as opened:
        metadata = opened.metadata()
    kept = {key: value for key, value in read_card(path)[1].items() if key in ("edges", "structure")}
    save_file(kept, path, metadata)
    assert np.isfinite(generate(pipe, {"shape": path})).all()


def test_a_card_whose_metadata_lacks_an_entry_is_none(pipe, card):
    path = card("color")
    metadata, kept = read_card(path)
    save_file(kept, path, {"format": metadata["format"]})
    with pytest.raises(ValueError, match="is no granularity card"):
        pipe.mg_encoder.encode({"color": path}, (SIZE, SIZE))


def test_the_command_line_writes_and_takes_cards(model, files, tmp_path, capsys):
    path, common = str(tmp_path / "denim.safetensors"), ["--model", str(model)]
    assert main(["encode", files[0], "-g", "texture", "-o", path, *common]) == 0
    assert capsys.readouterr().out.strip() == path
    with safe_open(path, "pt") as opened:
        assert opened.metadata()["granularity"] == "texture"
    pixels = []
    for texture in (path, files[0]):
        out = str(tmp_path / "out.png")
        assert main(["generate", "--texture", texture, "-o", out, "--force", "--steps", "2", *common]) == 0
        pixels.append(np.array(PIL.Image.open(out)))
    assert np.array_equal(*pixels)


def test_a_full_disk_is_told_and_leaves_no_part(model, files, tmp_path, capsys):
    with file_size_limit(1000):
        assert (
            main(["encode", files[0], "-g", "shape", "-o", str(tmp_path / "a.safetensors"), "--model", str(model)])
            == 2
        )
    assert "File too large" in capsys.readouterr().err and not list(tmp_path.iterdir())
