"""The code of docs/modular.md runs, from top to bottom, with the shipped model."""

import re
import shlex

import PIL.Image
from tiny_repository import draw

from mg_diffusion.export_modular import main


def test_the_page_runs(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hub_cards").symlink_to(repository / "hub_cards")
    for seed, name in enumerate(("brick.png", "leaf.png")):
        draw(tmp_path / name, seed)
    names, pictures = {}, []
    text = (repository / "docs" / "modular.md").read_text(encoding="utf-8")
    for language, code in re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL):
        if language == "bash":
            python, flag, module, *arguments = shlex.split(code)
            assert (python, flag, module) == ("python", "-m", "mg_diffusion.export_modular")
            main(arguments)
        else:
            exec(code.replace('output="images"', 'num_inference_steps=2, output="images"'), names)
            pictures.append(names["image"])
    assert len(pictures) == 5
    assert all(isinstance(one, PIL.Image.Image) and one.size == (64, 64) for one in pictures)
