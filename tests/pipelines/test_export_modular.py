"""Modular repositories: from disk and Hub, where the package is not installed, and what is committed."""

import json
import shutil
import subprocess

import pytest
import torch
from diffusers import ModularPipeline
from hub_stand_in import HubStandIn
from loading.worker import REFERENCES

from mg_diffusion import MGPipeline
from mg_diffusion.export_modular import export_modular, main
from mg_diffusion.pipelines.modular_mg import MGBlocks

from .fresh import fresh_process
from .tiny import seeded


SCALES = {"color": 1.0, "shape": 0.5}
OPTIONS = {"reference_image": REFERENCES, "num_inference_steps": 3, "output_type": "latent"}


def files_of(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def expected(folder) -> list[torch.Tensor]:
    """What `MGPipeline` makes, with and without guidance by granularities, and with classifier-free guidance off."""
    pipe = MGPipeline.from_pretrained(folder, mg_detail=None)  # the blocks paint what the base paints
    pipe.set_progress_bar_config(disable=True)
    options = ({}, {"granularity_guidance": SCALES}, {"guidance_scale": 1.0})
    return [pipe("a red flower", **OPTIONS, **more, generator=seeded()).images for more in options]


# What a fresh process makes with a modular pipeline, to be compared with `expected`.
MODULAR = f"""
from diffusers import ModularPipeline

def results(pipe):
    pipe.set_progress_bar_config(disable=True)
    made = []
    for config in ({{}}, {{"granularity_guidance": {SCALES}}}, {{"guidance_scale": 1.0}}):
        pipe.update_components(guider=type(pipe.guider)(**config))
        options = {{"reference_image": REFERENCES, "num_inference_steps": 3, "output_type": "latent"}}
        generator = torch.Generator().manual_seed(0)
        made.append(pipe(prompt="a red flower", **options, generator=generator, output="images"))
    return made
"""


def assert_same(made, wanted):
    for ours, theirs in zip(made, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert torch.equal(made[-1], wanted[-1])  # with nothing to guide, every run of the UNet is that of the pipeline
    assert not any(torch.allclose(wanted[0], other, atol=1e-3) for other in wanted[1:])


SHIPPED = """
shipped, committed, full, result = sys.argv[1:]
pipe = ModularPipeline.from_pretrained(committed, trust_remote_code=True)
pipe.update_components(**DiffusionPipeline.from_pretrained(shipped, trust_remote_code=True).components)
made = results(pipe)
pipe = ModularPipeline.from_pretrained(full, trust_remote_code=True)
pipe.load_components(trust_remote_code=True)
assert type(pipe.mg_encoder).__module__.startswith("diffusers_modules.") and "mg_diffusion" not in sys.modules
torch.save([made, results(pipe)], result)
"""


def test_the_shipped_model_loads_without_the_package(repository, tmp_path):
    """With the components of its sibling, and, with its weights, on its own."""
    shipped, bare, full = repository / "hub_cards" / "mg-bazaar", tmp_path / "bare", tmp_path / "full"
    export_modular(shipped, bare, weights=False)
    export_modular(shipped, full)
    places = [str(path) for path in (shipped, bare, full, tmp_path / "result.pt")]
    fresh_process(MODULAR + SHIPPED, tmp_path, *places)
    wanted = expected(shipped)
    for made in torch.load(tmp_path / "result.pt"):
        assert_same(made, wanted)


def test_only_the_card_is_kept_by_hand(repository):
    """`make modular` writes the rest."""
    tracked = subprocess.run(
        ["git", "ls-files", "hub_cards/mg-bazaar-modular"], cwd=repository, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("no git checkout")
    assert tracked.stdout.split() == ["hub_cards/mg-bazaar-modular/README.md"]


HUB = """
result = sys.argv[1]
pipe = ModularPipeline.from_pretrained("someone/tiny-modular", trust_remote_code=True)
pipe.load_components(trust_remote_code=True)
torch.save(results(pipe), result)
"""


def test_a_repository_loads_from_a_hub(make, tmp_path):
    make(is_inpainting=True, vae="haar").save_pretrained(tmp_path / "saved")
    export_modular(tmp_path / "saved", tmp_path / "modular", repo_id="someone/tiny-modular")
    with HubStandIn() as hub:
        hub.files["someone/tiny-modular"] = files_of(tmp_path / "modular")
        fresh_process(MODULAR + HUB, tmp_path, str(tmp_path / "result.pt"), **hub.environment())
    assert_same(torch.load(tmp_path / "result.pt"), expected(tmp_path / "saved"))


@pytest.mark.parametrize("vae, text", [("kl", True), ("haar", False)])
def test_blocks_of_the_package_read_a_repository(make, tmp_path, vae, text):
    make(vae=vae, text=text).save_pretrained(tmp_path / "saved")
    export_modular(tmp_path / "saved", tmp_path / "modular")
    pipe = MGBlocks().init_pipeline(str(tmp_path / "modular"))
    pipe.load_components(trust_remote_code=True)
    pipe.set_progress_bar_config(disable=True)
    assert (pipe.text_encoder is None) == (not text)
    classic = MGPipeline.from_pretrained(tmp_path / "saved")
    classic.set_progress_bar_config(disable=True)
    ours = pipe(**OPTIONS, generator=seeded(), output="images")
    torch.testing.assert_close(ours, classic(**OPTIONS, generator=seeded()).images, atol=1e-4, rtol=1e-4)


def test_without_weights_a_call_says_what_to_do(repository, tmp_path):
    export_modular(repository / "hub_cards" / "mg-bazaar", tmp_path, weights=False)
    folder = str(tmp_path)
    pipe = ModularPipeline.from_pretrained(folder, trust_remote_code=True)
    pipe.load_components(trust_remote_code=True)
    with pytest.raises(ValueError, match=r"\['unet', 'vae'.*are not loaded. Call `load_components"):
        pipe(reference_image={"color": ["#c1121f"]})


def test_other_files_stay_and_the_index_names_the_repository(model, tmp_path):
    (tmp_path / "README.md").write_text("card")
    main([str(model), str(tmp_path), "--repo-id", "someone/name", "--without-weights"])
    assert (tmp_path / "README.md").read_text() == "card"
    index = json.loads((tmp_path / "modular_model_index.json").read_text())
    places = {entry[2]["pretrained_model_name_or_path"] for entry in index.values() if isinstance(entry, list)}
    assert places == {"someone/name"}
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not any(str(model).encode() in content for content in files_of(tmp_path).values())


def test_places_that_cannot_be_are_refused(model, tmp_path):
    with pytest.raises(ValueError, match="holds no saved pipeline"):
        export_modular(tmp_path, tmp_path / "target")
    with pytest.raises(ValueError, match="holds a saved pipeline .* Give another folder"):
        export_modular(model, model)
    with pytest.raises(SystemExit, match="^error: .*holds no saved pipeline"):
        main([str(tmp_path), str(tmp_path / "target")])
    assert not (tmp_path / "target").exists()


def test_a_component_whose_code_is_missing_is_refused(model, tmp_path):
    shutil.copytree(model, tmp_path / "saved")
    (tmp_path / "saved" / "vae" / "modeling_autoencoder_haar.py").unlink()
    with pytest.raises(ValueError, match="lacks modeling_autoencoder_haar.py, the code of AutoencoderHaar"):
        export_modular(tmp_path / "saved", tmp_path / "target")
