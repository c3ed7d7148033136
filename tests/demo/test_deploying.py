"""What a deployer sets: safety checks, models, the files of a Space."""

import subprocess
import sys

import PIL.Image
import pytest

from demo.safety import checker_of, hold_back, named_check
from demo.space import write_space


def test_a_check_is_found_by_its_name():
    from demo.shelf import StopSign

    assert named_check(None) is None and named_check("") is None
    assert named_check("demo.shelf:StopSign") is StopSign
    for name in ("nothing.of:this", "demo.shelf:nothing", "demo.shelf", "demo.settings:MAX_COUNT"):
        with pytest.raises(ValueError, match="must be module:function"):
            named_check(name)


def test_any_name_of_a_session_has_a_stop_sign(tmp_path):
    from demo.shelf import Shelf, StopSign

    shelf = Shelf()
    for session in ("", "../../x", "\ud800"):
        sign = StopSign(shelf, session)
        sign.put_up()
        assert sign.is_up() and sign.path.parent == shelf.folder
    shelf.close()


def test_what_a_check_holds_back_is_not_shown():
    image = PIL.Image.new("RGB", (8, 8))
    hold_back([None, lambda images, prompt: [False]], [image], "")
    with pytest.raises(ValueError, match="held the result back"):
        hold_back([lambda images, prompt: [False, True]], [image, image], "")


def test_the_safety_checker_of_a_base_is_used(tmp_path, model):
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    assert checker_of(model) is None
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = CLIPConfig(
        vision_config={**small, "image_size": 32, "patch_size": 16}, text_config=small, projection_dim=8
    )
    checker = StableDiffusionSafetyChecker(config)
    size = {"shortest_edge": 32}
    processor = CLIPImageProcessor(size=size, crop_size={"height": 32, "width": 32})
    (tmp_path / "model_index.json").write_text(
        '{"_class_name": "X", "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}'
    )
    processor.save_pretrained(tmp_path / "feature_extractor")
    held = []
    for threshold in (-2.0, 2.0):  # below and above every cosine
        checker.concept_embeds_weights.data.fill_(threshold)
        checker.concept_embeds.data.normal_()
        checker.special_care_embeds_weights.data.fill_(2.0)
        checker.save_pretrained(tmp_path / "safety_checker")
        held += checker_of(tmp_path)([PIL.Image.new("RGB", (64, 64), "#44aa66")], "")
    assert held == [True, False]


def test_a_space_is_written_and_its_parts_are_imported(tmp_path, repository):
    pytest.importorskip("gradio", reason="the page needs the extra `demo`")
    folder = write_space(tmp_path / "space")
    assert {path.name for path in folder.iterdir()} == {"README.md", "requirements.txt", "app.py", "demo"}
    assert (folder / "README.md").read_text(encoding="utf-8").startswith("---\ntitle: MG-Diffusion\n")
    code = "import ast, sys; ast.parse(open('app.py').read()); import demo.app; print(demo.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip().startswith(str(folder)), done.stderr
    with pytest.raises(ValueError, match="is not empty"):
        write_space(folder)


def test_the_space_names_the_versions_that_are_tested(repository):
    constraints = (repository / "constraints.txt").read_text(encoding="utf-8")
    (version,) = [line.split("==")[1] for line in constraints.splitlines() if line.startswith("gradio==")]
    assert f"sdk_version: {version}\n" in (repository / "demo" / "README.md").read_text(encoding="utf-8")
