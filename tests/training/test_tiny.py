"""The smoke recipe runs; whether it has learned is judged by a function of its own."""

import json
from argparse import Namespace

import numpy as np
import PIL.Image
import pytest

from mg_diffusion.training import base, tiny
from mg_diffusion.training.validation import LABEL_WIDTH


@pytest.mark.parametrize("losses", [[1.0, 0.5], [1.0, 0.9, 0.5, 0.4, 0.6], [2.0, 3.0, 0.1, 0.1, 0.1]])
def test_halved_losses_pass(losses):
    assert tiny.check_learning(losses) == (losses[0], pytest.approx(np.mean(losses[1:][-3:])))


@pytest.mark.parametrize("losses", [[1.0], [1.0, 0.51], [1.0, 0.1, 0.6, 0.6, 0.6], [1.0, float("nan")], [1.0, 2.0]])
def test_losses_that_did_not_halve_are_an_error(losses):
    with pytest.raises(ValueError, match="did not halve"):
        tiny.check_learning(losses)


def test_pictures_are_an_imagefolder_that_is_the_same_every_time(tmp_path):
    for name in ("one", "other"):
        tiny.draw_pictures(tmp_path / name, count=3, size=32)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 8
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes() for file in files)
    rows = [json.loads(line) for line in (tmp_path / "one" / "train" / "metadata.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == [f"rendered picture number {index}" for index in range(3)]


def test_the_recipe_runs_and_says_when_it_has_not_learned(tmp_path, monkeypatch):
    smaller = {"resolution": 32, "block_out_channels": [32, 32], "text_width": 32, "num_validation_images": 2}
    monkeypatch.setattr(tiny, "run", lambda args: base.run(Namespace(**{**vars(args), **smaller})))
    with pytest.raises(SystemExit, match="^error: The loss did not halve"):
        tiny.main(["--output_dir", str(tmp_path), "--max_train_steps", "2"])
    assert (tmp_path / "weights" / "model_index.json").is_file() and (tmp_path / "checkpoint-2").is_dir()
    assert PIL.Image.open(tmp_path / "grid-000002.png").size == (LABEL_WIDTH + 2 * 128, 8 * 128)
    assert not (tmp_path / "grid-000000.png").exists()
    compared = np.array(PIL.Image.open(tmp_path / "overfitted.png"))
    assert compared.shape == (2 * 4 * 32, 8 * 4 * 32, 3)
    first = np.array(PIL.Image.open(tmp_path / "data" / "train" / "0.png").resize((32, 32)))
    assert np.array_equal(compared[: 4 * 32 : 4, : 4 * 32 : 4], first)


def test_pictures_that_come_back_are_counted():
    pictures = np.random.default_rng(0).random((4, 8, 8, 3))
    assert tiny.count_returned(pictures, 0.9 * pictures) == 4
    assert tiny.count_returned(pictures, pictures[[1, 0, 2, 3]]) == 2
    assert tiny.count_returned(pictures, np.repeat(pictures[:1], 4, 0)) == 1
