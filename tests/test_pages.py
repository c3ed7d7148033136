"""The pictures of the documentation's pages, with a very small untrained model."""

import PIL.Image
import pytest

from demo import pages
from mg_diffusion.recipe import read_recipe


@pytest.mark.parametrize("name", pages.PAGES)
def test_every_page_has_a_picture_that_its_text_shows(name, model, tmp_path, monkeypatch, repository):
    generate = pages.generate
    monkeypatch.setattr(
        pages, "generate", lambda pipe, references, **o: generate(pipe, references, **o, num_inference_steps=10)
    )
    pages.main(["--only", name, "--output", str(tmp_path), "--model", str(model)])
    path = tmp_path / f"{name}.png"
    assert read_recipe(path) | {"versions": None} == {
        "command": "demo.pages",
        "page": name,
        "model": "tiny-bazaar",
        "versions": None,
    }
    with PIL.Image.open(path) as image:
        assert image.width > 600
    texts = [page.read_text(encoding="utf-8") for page in (repository / "docs").glob("*.md")]
    assert any(f"(images/{name}.png)" in text for text in texts)
    assert (repository / "docs" / "images" / f"{name}.png").is_file()


def test_an_unknown_model_is_an_error(tmp_path):
    with pytest.raises(SystemExit, match="error: .*nosuch"):
        pages.main(["--model", str(tmp_path / "nosuch" / "model"), "--output", str(tmp_path)])
