"""The palette of a picture: what it says of the picture, and that it can be handed back as a color reference."""

import numpy as np
import PIL.Image
import pytest

from mg_diffusion import MGEncoder
from mg_diffusion.cli.references import parse_reference
from mg_diffusion.palettes import extract_palette
from mg_diffusion.training.renderer import render


@pytest.fixture(scope="module")
def encoder():
    return MGEncoder().eval()


def flat(*colors, size=64):
    """Vertical bands of equal width."""
    bands = np.repeat(np.array(colors, np.uint8), size // len(colors), 0)
    return PIL.Image.fromarray(np.broadcast_to(bands, (size, *bands.shape)).copy())


def test_flat_colors_come_back_with_their_shares(encoder):
    picture = flat((200, 30, 30), (200, 30, 30), (200, 30, 30), (20, 40, 90))
    assert extract_palette(encoder, picture) == ["#c81e1e:75", "#14285a:25"]
    assert extract_palette(encoder, picture, 1)[0].endswith(":100")


@pytest.mark.parametrize("count", [0, 257, 2.5, "3", None, True, np.float32(3), [3]], ids=repr)
def test_what_counts_no_colors_is_refused(encoder, count):
    with pytest.raises(ValueError, match="1 to 256 colors, a whole number"):
        extract_palette(encoder, flat((200, 30, 30), (20, 40, 90)), count)


def test_a_count_of_numpy_is_one(encoder):
    assert len(extract_palette(encoder, flat((200, 30, 30), (20, 40, 90)), np.uint8(2))) == 2


def test_a_mask_leaves_out_the_rest(encoder):
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 255
    palette = extract_palette(encoder, {"image": flat((200, 30, 30), (20, 40, 90)), "mask": mask})
    assert palette == ["#14285a:100"]


def test_a_thin_mask_is_read(encoder):
    mask = np.zeros((640, 640), np.uint8)
    mask[::40] = 255
    large = flat((200, 30, 30), (20, 40, 90), size=640)
    assert {entry[:7] for entry in extract_palette(encoder, {"image": large, "mask": mask}, 2)} == {
        "#c81e1e",
        "#14285a",
    }


def test_a_palette_stands_for_its_picture(encoder):
    """As a color reference it is nearer to its own picture than to any of seven others."""
    pictures = [render(seed, seed + 20, seed + 40, size=64).astype(np.float32) for seed in range(8)]
    of_pictures, of_palettes = (
        [encoder.encode({"color": one}, (32, 32))["color"][0]["palette"][0] for one in references]
        for references in (pictures, [extract_palette(encoder, picture, 6) for picture in pictures])
    )
    for place, palette in enumerate(of_palettes):
        distances = [
            (palette.sort(0).values.mean(0) - other.sort(0).values.mean(0)).norm().item() for other in of_pictures
        ]
        assert int(np.argmin(distances)) == place


@pytest.mark.parametrize("count", [0, 257])
def test_counts_out_of_range_are_refused(encoder, count):
    with pytest.raises(ValueError, match="1 to 256 colors"):
        extract_palette(encoder, flat((1, 2, 3)), count)


def test_the_command_line_takes_what_it_prints(encoder):
    palette = extract_palette(encoder, render(1, 2, 3, size=64).astype(np.float32))
    assert parse_reference("color", ",".join(palette)).value == palette
