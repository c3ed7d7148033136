"""Files that phones and browsers write: HEIC, and pictures of several frames."""

import sys

import numpy as np
import PIL.Image
import pytest

from mg_diffusion import compose
from mg_diffusion.pictures import UnreadablePicture, read_upright
from tests.pipelines.tiny import picture


def test_heic_is_read_where_pillow_heif_is_installed(tmp_path):
    import pillow_heif

    shown = picture(1, 64, 96)
    pillow_heif.from_pillow(shown).save(tmp_path / "phone.HEIC", quality=100)
    read = read_upright(tmp_path / "phone.HEIC").convert("RGB")
    assert read.size == (96, 64)
    assert np.abs(np.asarray(read).astype(int) - np.asarray(shown)).mean() < 6
    assert compose({"shape": tmp_path / "phone.HEIC"}, 64, 64)[0].size == (64, 64)


def test_without_it_the_package_is_named(tmp_path, monkeypatch):
    (tmp_path / "phone.heic").write_bytes(b"\x00\x00\x00\x18ftypheic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UnreadablePicture, match="pip install pillow-heif") as refused:
        read_upright(tmp_path / "phone.heic")
    assert refused.value.reason == "foreign"
    with pytest.raises(ValueError, match="pip install pillow-heif"):
        compose({"shape": tmp_path / "phone.heic"}, 64, 64)


def test_what_is_no_picture_stays_none(tmp_path):
    (tmp_path / "broken.heic").write_bytes(b"nothing")
    with pytest.raises(UnreadablePicture):
        read_upright(tmp_path / "broken.heic")


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_of_several_frames_the_first_is_taken_and_that_is_told(tmp_path, name):
    frames = [picture(seed, 32, 32) for seed in range(3)]
    frames[0].save(
        tmp_path / name, save_all=True, append_images=frames[1:], **({} if name == "a.gif" else {"lossless": True})
    )
    with pytest.warns(UserWarning, match="has 3 frames; the first one is taken"):
        read = read_upright(tmp_path / name).convert("RGB")
    assert np.abs(np.asarray(read).astype(int) - np.asarray(frames[0])).mean() < 12


def test_a_still_picture_says_nothing(tmp_path, recwarn):
    PIL.Image.new("RGB", (32, 32)).save(tmp_path / "a.gif")
    read_upright(tmp_path / "a.gif")
    assert not recwarn
