"""The workflows that come along, executed: with a tiny checkpoint, pictures of noise, and no text encoder."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from running import GIVEN


FOLDER = Path(__file__).resolve().parents[1] / "mg_diffusion" / "comfyui" / "api_workflows"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_a_workflow_runs(comfy, checkpoint, path):
    graph = json.loads(path.read_text(encoding="utf-8"))
    random = np.random.default_rng(0)
    GIVEN["text"] = [[torch.zeros(1, 77, 768), {}]]
    for key, node in graph.items():
        inputs = node["inputs"]
        if node["class_type"] == "LoadImage":
            channels = 4 if "hole" in inputs["image"] else 3
            pixels = random.integers(0, 256, (64, 64, channels), dtype=np.uint8)
            pixels[..., 3:] = 255
            pixels[16:48, 16:48, 3:] = 0
            PIL.Image.fromarray(pixels).save(comfy.root / "input" / inputs["image"])
        elif node["class_type"] == "CLIPTextEncode":
            graph[key] = {"class_type": "TestGive", "inputs": {"name": "text"}}
        elif node["class_type"] == "CheckpointLoaderSimple":
            inputs["ckpt_name"] = checkpoint
        inputs |= {"steps": 2} if "steps" in inputs else {}
        inputs |= {side: 64 for side in ("width", "height") if side in inputs}
    shown = comfy.run(graph)
    saved = [key for key, node in graph.items() if node["class_type"] == "SaveImage"]
    names = [image["filename"] for key in saved for image in shown[key]["images"]]
    made = [np.asarray(PIL.Image.open(comfy.root / "output" / name)) for name in names]
    assert len(made) == len(saved) and all(len(np.unique(one)) > 10 for one in made)
    if path.stem == "exact_inpaint":
        photo = np.asarray(PIL.Image.open(comfy.root / "input" / graph["photo"]["inputs"]["image"]))
        kept = photo[..., 3] == 255
        assert np.array_equal(made[0][kept], photo[kept][:, :3]) and not np.array_equal(made[0], photo[..., :3])


def test_the_page_has_the_same_workflows(comfy):
    import nodes
    from page_format import pages

    folder = FOLDER.parent / "example_workflows"
    expected = pages(nodes.NODE_CLASS_MAPPINGS)
    assert {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")} == expected
