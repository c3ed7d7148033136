"""An export is a smaller copy that loads anywhere, next to the files that are already there."""

import json
import shutil

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from small_disk import file_size_limit
from tiny_repository import save_tiny_repository

from mg_diffusion import MGAdapter, MGPipeline
from mg_diffusion.cli import main
from mg_diffusion.export import export


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return save_tiny_repository(tmp_path_factory.mktemp("weights"))


def megabytes(folder):
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 1e6


@pytest.mark.parametrize("name, share", [("float16", 0.5), ("bfloat16", 0.5), ("float32", 1.0)])
def test_weights_have_the_size_of_their_type(source, tmp_path, name, share):
    size = export(source, tmp_path, getattr(torch, name))
    assert size == megabytes(tmp_path) == pytest.approx(share * megabytes(source), rel=0.1)
    weights = load_file(tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {getattr(torch, name)}


def test_other_files_stay_and_an_export_can_be_exported_again(source, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    kept = {"README.md": "card", "bench.json": "{}", "__init__.py": "kept = True"}
    for name, content in kept.items():
        (first / name).write_text(content)
    export(source, first)
    assert {name: (first / name).read_text() for name in kept} == kept
    export(first, second)
    for path in first.rglob("*.safetensors"):
        one, again = load_file(path), load_file(second / path.relative_to(first))
        assert one.keys() == again.keys() and all(torch.equal(one[key], again[key]) for key in one)
    pipeline = DiffusionPipeline.from_pretrained(second, trust_remote_code=True, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline("a flower", num_inference_steps=1).images[0].size == (32, 32)
    assert {path.name for path in second.rglob("*.py")} >= {"pipeline_mg.py"}


def test_a_model_that_is_there_is_overwritten_only_by_force(source, tmp_path, capsys):
    export(source, tmp_path, torch.float32)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    flags = ["export", str(source), "-o", str(tmp_path)]
    assert main(flags) == 2 and "model_index.json' already" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert main([*flags, "--force"]) == 0 and megabytes(tmp_path) < 0.6 * megabytes(source)


def test_a_full_disk_is_told_as_of_any_other_file(source, tmp_path, capsys):
    with file_size_limit(10_000):
        assert main(["export", str(source), "-o", str(tmp_path / "out")]) == 2
    assert "could not be written" in capsys.readouterr().err


def test_exported_files_name_no_place(source, tmp_path):
    export(source, tmp_path)
    for path in [*tmp_path.rglob("*.json"), *tmp_path.rglob("*.txt")]:
        text = path.read_text(encoding="utf-8")
        assert str(source) not in text and "/tmp" not in text and str(tmp_path) not in text, path.name


def test_a_folded_strength_is_what_one_means_afterwards(source, tmp_path):
    flags = ["--strength", "texture=1.5", "--dtype", "float32"]
    assert main(["export", str(source), "-o", str(tmp_path), *flags]) == 0

    def run(folder, texture):
        pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32)
        pipe.set_progress_bar_config(disable=True)
        photo = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))
        return pipe(
            reference_image={"texture": photo, "shape": photo},
            granularity_scale={"texture": texture, "shape": 0.7},
            num_inference_steps=2,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
        ).images

    torch.testing.assert_close(run(tmp_path, 1.0), run(source, 1.5), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(run(source, 1.0), run(source, 1.5), atol=1e-4)


@pytest.mark.parametrize("strengths", [{"colour": 1.0}, {"texture": -1.0}, {"texture": float("nan")}])
def test_a_strength_that_is_none_is_not_folded(source, tmp_path, strengths):
    with pytest.raises(ValueError, match="granularity|strength"):
        export(source, tmp_path / "target", strengths=strengths)
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("missing", ["empty", "nowhere"])
def test_a_folder_without_a_pipeline_is_refused(tmp_path, missing, capsys):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=f"{missing}' holds no saved pipeline"):
        export(tmp_path / missing, tmp_path / "target")
    assert main(["export", str(tmp_path / missing), "-o", str(tmp_path / "target")]) == 2
    assert "holds no saved pipeline" in capsys.readouterr().err
    assert not (tmp_path / "target").exists()


def test_a_folder_is_not_exported_onto_itself(source):
    with pytest.raises(ValueError, match="cannot be exported onto itself"):
        export(source, source / "unet" / "..")


def test_code_that_a_pipeline_brings_does_not_run(source, tmp_path):
    foreign = tmp_path / "foreign"
    shutil.copytree(source, foreign)
    (foreign / "vae" / "modeling_autoencoder_haar.py").rename(foreign / "vae" / "foreign_codec.py")
    index = json.loads((foreign / "model_index.json").read_text())
    (foreign / "model_index.json").write_text(json.dumps({**index, "vae": ["foreign_codec", "AutoencoderHaar"]}))
    with pytest.raises(ValueError, match="trust_remote_code"):
        export(foreign, tmp_path / "target")


def test_the_command_tells_the_size(source, tmp_path, capsys):
    assert main(["export", str(source), "-o", str(tmp_path / "target"), "--dtype", "bfloat16"]) == 0
    assert (
        capsys.readouterr().out.strip() == f"{tmp_path / 'target'}: {megabytes(tmp_path / 'target'):.1f} MB of weights"
    )


def test_the_run_is_described_without_the_places_of_the_machine(source, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(source, run / "weights")
    (run / "training_config.json").write_text(json.dumps({"learning_rate": 0.5, "train_data_dir": "/secret/place"}))
    export(run / "weights", tmp_path / "out")
    training = json.loads((tmp_path / "out" / "training.json").read_text())
    assert training["learning_rate"] == 0.5 and training["parameters"] > 0
    assert "train_data_dir" not in training


@pytest.fixture(scope="module")
def pair(source, tmp_path_factory):
    """A base without references, and the encoder and the adapter for it in a folder of their own."""
    base, adapter = (tmp_path_factory.mktemp(name) for name in ("base", "adapter"))
    pipeline = MGPipeline.from_pretrained(source)
    for name in ("mg_encoder", "mg_adapter"):
        getattr(pipeline, name).save_pretrained(adapter / name)
    MGPipeline.from_pretrained(source, mg_encoder=None, mg_adapter=None).save_pretrained(base)
    return base, adapter


def test_a_base_and_an_adapter_make_one_repository(source, pair, tmp_path, capsys):
    base, adapter = pair
    flags = ["--base", str(base), "--adapter", str(adapter), "--dtype", "float32"]
    assert main(["export", *flags, "-o", str(tmp_path / "made")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'made'}: {megabytes(source):.1f} MB of weights\n"
    made = DiffusionPipeline.from_pretrained(tmp_path / "made", trust_remote_code=True)
    assert type(made).__name__ == "MGPipeline"
    for path in source.rglob("*.safetensors"):
        one, again = load_file(path), load_file(tmp_path / "made" / path.relative_to(source))
        assert one.keys() == again.keys() and all(torch.equal(one[key], again[key]) for key in one)
    assert main(["export", *flags, "-o", str(tmp_path / "strong"), "--strength", "color=2"]) == 0
    one, strong = (MGAdapter.from_pretrained(tmp_path / name, subfolder="mg_adapter") for name in ("made", "strong"))
    assert torch.equal(strong.to_v[0]["color"].weight, 2 * one.to_v[0]["color"].weight)


def test_an_adapter_of_another_base_is_refused(pair, tmp_path, capsys):
    base, adapter = pair
    unet = json.loads((base / "unet" / "config.json").read_text())
    other = tmp_path / "other"
    shutil.copytree(base, other)
    pipeline = MGPipeline.from_pretrained(base)
    wide = type(pipeline.unet)(**{**unet, "block_out_channels": [2 * size for size in unet["block_out_channels"]]})
    wide.save_pretrained(other / "unet")
    assert main(["export", "--base", str(other), "--adapter", str(adapter), "-o", str(tmp_path / "out")]) == 2
    assert "Use the base it was trained on" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", [[], ["--base", "b"], ["--adapter", "a"], ["w", "--base", "b", "--adapter", "a"]])
def test_weights_or_a_base_with_an_adapter_are_exported(flags, tmp_path, capsys):
    assert main(["export", *flags, "-o", str(tmp_path / "out")]) == 2
    assert "either WEIGHTS, the folder of a saved pipeline, or both --base and --adapter" in capsys.readouterr().err


def test_an_adapter_that_is_not_there_is_refused(pair, tmp_path, capsys):
    base, _ = pair
    assert main(["export", "--base", str(base), "--adapter", str(base), "-o", str(tmp_path / "out")]) == 2
    assert "Cannot load MGEncoder" in capsys.readouterr().err
    with pytest.raises(ValueError, match="cannot be exported onto itself"):
        export(pair[1], base, base=base)
