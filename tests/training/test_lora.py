"""Fine-tuning with low-rank updates of the UNet: what is trained, what stays, and what loads where."""

import shutil
import sys

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from mg_diffusion import MGAdapter, MGEncoder
from mg_diffusion.pipelines import MGPipeline
from mg_diffusion.training.arguments import parse_args
from mg_diffusion.training.base import export_weights, load_components, run
from mg_diffusion.training.models import TrainedModel, build_components

from .conftest import SIZE


pytest.importorskip("peft")
PARTS = {"mg_encoder": MGEncoder, "mg_adapter": MGAdapter}


@pytest.fixture(scope="module")
def start(pictures, tmp_path_factory):
    """The folder of a new, very small pipeline."""
    place = tmp_path_factory.mktemp("start")
    torch.manual_seed(0)
    export_weights(build_components(pictures.captions, SIZE, [32, 32], 32), place)
    return place


@pytest.fixture(scope="module")
def tuned(flags, folder, start, tmp_path_factory):
    """An uninterrupted run of four steps and its flags."""
    data, output = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("tuned")
    shutil.copytree(folder / "train", data / "train")  # no validation, which takes time
    own = {"init_from": start, "block_out_channels": None, "text_width": None, "lora_rank": 2, "train_data_dir": data}
    run(parse_args(flags("base", output, **own)))
    return output, own


def weights_of(folder, name):
    file = "model" if name == "text_encoder" else "diffusion_pytorch_model"
    return load_file(folder / name / f"{file}.safetensors")


def test_updates_encoder_and_adapter_are_trained_and_nothing_else_is(tuned, start):
    output, _ = tuned
    names = load_file(output / "checkpoint-4" / "trained.safetensors")
    kinds = {name.split(".")[0]: "lora" in name for name in names}
    assert kinds == {"unet": True, "mg_encoder": False, "mg_adapter": False}
    assert not list((output / "checkpoint-4").glob("model*.safetensors"))
    before, after = weights_of(start, "unet"), weights_of(output / "weights", "unet")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys() and changed
    updated = ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "conv1.weight", "conv2.weight")
    assert all(name.endswith(updated) for name in changed)
    text = [weights_of(place, "text_encoder") for place in (start, output / "weights")]
    assert all(torch.equal(value, text[1][name]) for name, value in text[0].items())


def test_a_resumed_run_ends_with_the_same_updates_bit_for_bit(tuned, flags, tmp_path):
    output, own = tuned
    shutil.copytree(output / "checkpoint-2", tmp_path / "checkpoint-2")
    run(parse_args(flags("base", tmp_path, **own, resume_from_checkpoint="latest")))
    for name in ("checkpoint-4/trained.safetensors", "weights/lora/pytorch_lora_weights.safetensors"):
        one, other = load_file(output / name), load_file(tmp_path / name)
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one), name


def latents_of(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    picture = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    references = dict.fromkeys(("color", "texture", "shape"), picture)
    generator = torch.Generator().manual_seed(1)
    return pipeline(
        reference_image=references, generator=generator, num_inference_steps=2, output_type="latent"
    ).images


def test_what_is_written_makes_the_latents_of_what_was_trained(start, tmp_path):
    from mg_diffusion.training.lora import add_lora, export_lora, fused

    components = load_components(str(start))
    names = ("unet", "text_encoder", *PARTS)
    add_lora(Accelerator(cpu=True), TrainedModel(*(components[name] for name in names)).requires_grad_(True), rank=2)
    untouched = latents_of(MGPipeline.from_pretrained(start))
    assert torch.equal(latents_of(MGPipeline(**components)), untouched)  # updates begin as nothing
    for part in ("unet", *PARTS):
        for parameter in components[part].parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter.data, std=0.05)
    trained = latents_of(MGPipeline(**components))
    assert not torch.allclose(trained, untouched, atol=1e-2)

    export_lora(components, tmp_path / "lora")
    parts = {name: kind.from_pretrained(tmp_path / "lora", subfolder=name) for name, kind in PARTS.items()}
    loaded = MGPipeline.from_pretrained(start, **parts)
    loaded.load_lora_weights(tmp_path / "lora")
    assert torch.equal(latents_of(loaded), trained)
    loaded.unload_lora_weights()
    base = weights_of(start, "unet")
    assert all(torch.equal(value, base[name]) for name, value in loaded.unet.state_dict().items())

    export_weights(components | {"unet": fused(components["unet"])}, tmp_path / "weights")
    assert torch.allclose(latents_of(MGPipeline.from_pretrained(tmp_path / "weights")), trained, atol=1e-4)
    assert torch.equal(latents_of(MGPipeline(**components)), trained)  # the copy alone was fused


@pytest.mark.parametrize(
    "flags_given, message",
    [
        (["--lora_rank", "4"], "--lora_rank needs --init_from"),
        (["--lora_rank", "0", "--init_from", "b"], "--lora_rank must be at least 1, got 0"),
        (["--lora_rank", "4", "--init_from", "b", "--text_only"], "--lora_rank contradicts --text_only"),
    ],
)
def test_contradictions_are_refused(flags_given, message, capsys):
    with pytest.raises(SystemExit):
        parse_args(["base", "--train_data_dir", "pictures", "--output_dir", "run", *flags_given])
    assert message in capsys.readouterr().err


def test_what_to_install_is_told(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "peft", None)  # as where it is not installed
    with pytest.raises(SystemExit):
        parse_args(["base", "--train_data_dir", "p", "--output_dir", "run", "--init_from", "b", "--lora_rank", "4"])
    assert "--lora_rank needs peft, which is not installed: pip install peft" in capsys.readouterr().err
