"""Stage `adapter` on stock bases, and stage `base --text_only`, which makes such a base."""

import importlib
import json
import shutil

import diffusers
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import DDPMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from pipelines.tiny import tiny_components, tiny_encoder
from pipelines.tiny_xl import tiny_components_xl
from safetensors.torch import load_file, save_file

from mg_diffusion import MGAdapter, MGEncoder, MGPipeline
from mg_diffusion.training import __main__ as command
from mg_diffusion.training.adapter import AdapterObjective, load_pipeline, run
from mg_diffusion.training.arguments import parse_args
from mg_diffusion.training.caching import (
    CachedCrossings,
    cached,
    distribution_of,
    latents_of,
    text_of,
)
from mg_diffusion.training.checkpoints import read_manifest, write_manifest
from mg_diffusion.training.fingerprints import code_fingerprint, model_fingerprint
from mg_diffusion.training.models import ConditionedUNet
from mg_diffusion.training.samples import SampleStream
from mg_diffusion.training.trained_parts import TRAINED


def save_base(folder, kind="epsilon", is_inpainting=False):
    """A stock Stable Diffusion of random weights in the format of diffusers."""
    tokenizer_folder = folder.with_name(folder.name + "-tokenizer")
    tokenizer_folder.mkdir()
    parts = tiny_components(tokenizer_folder, is_inpainting)
    base = {name: parts[name] for name in ("vae", "text_encoder", "tokenizer", "unet")}
    StableDiffusionPipeline(
        **base,
        scheduler=DDPMScheduler(prediction_type=kind, clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("bases") / "base")


@pytest.fixture(scope="module")
def arguments(flags, base, folder, tmp_path_factory):
    """arguments(output_dir, name=value, ...) of a very small run without validation."""
    data = tmp_path_factory.mktemp("data")
    shutil.copytree(folder / "train", data / "train")

    def build(output, *switches, **changed):
        changed = {"pretrained_model_name_or_path": base, "train_data_dir": data, **changed}
        return parse_args([*flags("adapter", output, **changed), *switches])

    return build


@pytest.fixture(scope="module")
def whole(arguments, folder, tmp_path_factory):
    """An uninterrupted run with validation, and its records."""
    output = tmp_path_factory.mktemp("adapter")
    return output, run(arguments(output, train_data_dir=folder))


def test_the_weights_attach_to_the_base_they_were_trained_on(whole, base):
    folder = whole[0] / "weights"
    assert sorted(path.name for path in folder.iterdir()) == ["mg_adapter", "mg_encoder"]
    encoder = MGEncoder.from_pretrained(folder, subfolder="mg_encoder")
    adapter = MGAdapter.from_pretrained(folder, subfolder="mg_adapter")
    pipeline = MGPipeline.from_pretrained(base, mg_encoder=encoder, mg_adapter=adapter)
    pipeline.set_progress_bar_config(disable=True)
    picture = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    made = [
        pipeline(
            "a photo",
            reference_image=references,
            num_inference_steps=2,
            output_type="pt",
            generator=torch.Generator().manual_seed(0),
        ).images
        for references in (None, {"color": picture, "texture": picture, "shape": picture})
    ]
    assert not torch.equal(*made)  # four steps move what starts at zero


def test_a_checkpoint_holds_what_is_trained_and_not_the_base(whole):
    folder = whole[0] / "checkpoint-4"
    stored = load_file(folder / TRAINED)
    assert {name.split(".")[0] for name in stored} == {"mg_encoder", "mg_adapter"}
    assert not list(folder.glob("model*.safetensors")) and not list(folder.glob("*.bin.index*"))
    assert all(value.dtype == torch.float32 for value in stored.values())


def test_the_grid_and_the_losses_are_there(whole):
    assert (whole[0] / "grid-000004.png").is_file()
    assert [record["step"] for record in whole[1] if "val_loss" in record] == [2, 4]


def test_a_resumed_run_ends_with_the_same_weights_bit_for_bit(whole, arguments, folder, tmp_path):
    shutil.copytree(whole[0] / "checkpoint-2", tmp_path / "checkpoint-2")
    records = run(arguments(tmp_path, resume_from_checkpoint="latest", train_data_dir=folder))
    one, other = (load_file(folder / "checkpoint-4" / TRAINED) for folder in (whole[0], tmp_path))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert records[-1] == whole[1][-1]


def test_a_checkpoint_of_another_adapter_is_refused(whole, arguments, tmp_path):
    shutil.copytree(whole[0] / "checkpoint-2", tmp_path / "checkpoint-2")
    stored = load_file(tmp_path / "checkpoint-2" / TRAINED)
    stored.popitem()
    save_file(stored, tmp_path / "checkpoint-2" / TRAINED)
    write_manifest(tmp_path / "checkpoint-2", 2, 1, read_manifest(tmp_path / "checkpoint-2")["settings"])
    with pytest.raises(ValueError, match="checkpoint-2' is no checkpoint of such an adapter"):
        run(arguments(tmp_path, resume_from_checkpoint="latest"))


@pytest.mark.parametrize("kind, is_inpainting", [("v_prediction", False), ("epsilon", True)])
def test_other_predictions_and_inpainting_bases(arguments, tmp_path, kind, is_inpainting):
    place = save_base(tmp_path / "base", kind, is_inpainting)
    options = {"pretrained_model_name_or_path": place, "max_train_steps": 2}  # the first warms up
    records = run(arguments(tmp_path / "run", **options))
    assert all(torch.isfinite(torch.tensor(record.get("loss", 0.0))) for record in records)
    trained = load_file(tmp_path / "run" / "checkpoint-2" / TRAINED)
    assert any(trained[name].any() for name in trained if "to_v" in name)  # which start at zero


def test_an_sdxl_base(arguments, tmp_path):
    (tmp_path / "tokenizers").mkdir()
    parts = tiny_components_xl(tmp_path / "tokenizers")
    own = {name: parts.pop(name) for name in ("mg_encoder", "mg_adapter")}
    assert own
    StableDiffusionXLPipeline(**parts, add_watermarker=False).save_pretrained(tmp_path / "base")
    options = {"pretrained_model_name_or_path": tmp_path / "base", "max_train_steps": 2}
    for place, switches in (("run", ()), ("kept", ("--cache_latents",))):
        run(arguments(tmp_path / place, *switches, cache_dir=tmp_path / "cache", **options))
        trained = load_file(tmp_path / place / "checkpoint-2" / TRAINED)
        assert any(trained[name].any() for name in trained if "to_v" in name)


def test_training_goes_on_from_an_adapter_with_checkpointing_in_low_precision(whole, base, arguments, tmp_path):
    options = {"mg_model_name_or_path": whole[0] / "weights", "mixed_precision": "bf16", "max_train_steps": 1}
    args = arguments(tmp_path, "--gradient_checkpointing", learning_rate=1e-9, **options)
    AcceleratorState._reset_state(reset_partial_state=True)  # of the other precision
    try:
        run(args)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    name = "mg_adapter/diffusion_pytorch_model.safetensors"
    before, after = load_file(whole[0] / "weights" / name), load_file(tmp_path / "weights" / name)
    assert all(torch.allclose(before[key], after[key], atol=1e-6) for key in before)
    pipeline = pipeline_of(args, torch.bfloat16)
    assert pipeline.unet.dtype == pipeline.vae.dtype == torch.bfloat16
    assert pipeline.mg_adapter.dtype == pipeline.mg_encoder.dtype == torch.float32


def pipeline_of(args, dtype=torch.float32):
    return load_pipeline(args.pretrained_model_name_or_path, dtype, args.variant, args.mg_model_name_or_path)


def objective_and_batch(args, pool, pictures, **options):
    pipeline = pipeline_of(args)
    for parameter in pipeline.mg_adapter.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    model = ConditionedUNet(pipeline.unet, pipeline.mg_encoder, pipeline.mg_adapter)
    for part in (pipeline.mg_encoder, pipeline.mg_adapter):
        part.requires_grad_(True)
    shares = {"composite": 0.5, "rendered": 0.0}
    stream = SampleStream(*pool, pictures.captions, 8, 0, shares, 64, is_inpainting=False, **options)
    objective = AdapterObjective(pipeline, 5.0, 32, 32)
    return model, objective, objective.collate([stream[i] for i in range(4)])


def test_gradient_checkpointing_changes_no_gradient(arguments, pool, pictures, tmp_path):
    model, objective, batch = objective_and_batch(arguments(tmp_path), pool, pictures)
    model.train()
    timesteps, noise = torch.tensor([10, 300, 700, 999]), torch.randn(4, 4, 16, 16)
    gradients = []
    for is_saved in (False, True):
        if is_saved:
            model.unet.enable_gradient_checkpointing()
        model.zero_grad()
        torch.manual_seed(0)  # of the latents' distribution
        with model.mg_adapter.attach(model.unet):
            objective(model, batch, timesteps, noise, 1.0).mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert {name.split(".")[0] for name in gradients[0]} == {"mg_encoder", "mg_adapter"}
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4)


def test_kept_latents_and_texts_are_those_of_the_base(arguments, pool, pictures, tmp_path):
    _, objective, batch = objective_and_batch(arguments(tmp_path), pool, pictures)
    images, cpu = torch.cat([pictures.whole, pictures.crop]), torch.device("cpu")
    kept = latents_of(objective.vae, images, cpu)
    keeping = AdapterObjective(objective.pipeline, 5.0, 32, 32, cached_latents=kept)
    kept["deviation"].zero_()
    clean = keeping.clean_latents(batch)
    is_photo = batch["item"] >= 0
    assert is_photo.any() and not is_photo.all()
    mode = objective.vae.encode(batch["image"]).latent_dist.mode() * objective.vae.config.scaling_factor
    torch.testing.assert_close(clean[is_photo], mode[is_photo], atol=2e-3, rtol=2e-3)
    assert ((clean - mode)[~is_photo].abs().mean((1, 2, 3)) > 0).all()  # drawn from their distribution


def test_kept_crossings_are_encoded_once_and_alone(arguments, pool, pictures, tmp_path, monkeypatch):
    _, objective, batch = objective_and_batch(arguments(tmp_path), pool, pictures)
    images = batch["image"]
    keeping = CachedCrossings(objective.vae)
    first = keeping([5, 2, 5], torch.stack([images[0], images[1], images[0]]))
    alone = distribution_of(objective.vae, images[1:2])
    assert all(torch.equal(first[name][1:2], alone[name]) for name in ("mean", "deviation"))
    torch.testing.assert_close(
        first["mean"][0].float(), objective.vae.encode(images[:1]).latent_dist.mode()[0], atol=2e-3, rtol=2e-3
    )
    monkeypatch.setattr(objective.vae, "encode", None)  # nothing is asked of it again
    again = keeping([2, 5], torch.zeros_like(images[:2]))
    assert all(torch.equal(again[name], first[name][[1, 0]]) for name in again)


def test_a_run_that_keeps_crossings_resumes_bit_for_bit(arguments, tmp_path):
    options = {"cache_dir": tmp_path / "kept", "composite_share": 0.5, "rendered_share": 0.5, "checkpointing_steps": 1}
    run(arguments(tmp_path / "whole", "--cache_latents", max_train_steps=2, **options))
    shutil.copytree(tmp_path / "whole" / "checkpoint-1", tmp_path / "part" / "checkpoint-1")
    resumed = {**options, "resume_from_checkpoint": "latest"}
    run(arguments(tmp_path / "part", "--cache_latents", max_train_steps=2, **resumed))
    one, other = (load_file(tmp_path / name / "checkpoint-2" / TRAINED) for name in ("whole", "part"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_that_keeps_latents_is_validated_on_the_samples_of_one_that_does_not(
    arguments, folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("mg_diffusion.training.fitting.save_grid", lambda *_: None)  # which takes time
    options = {"train_data_dir": folder, "max_train_steps": 1, "num_validation_images": 4, "composite_share": 1}
    options |= {"rendered_share": 0, "cache_dir": tmp_path / "kept", "learning_rate": 1e-12}
    losses = []
    for name, switches in (("plain", ()), ("kept", ("--cache_latents",))):
        records = run(arguments(tmp_path / name, *switches, **options))
        losses.append(next(record for record in records if "val_loss" in record))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_run_with_kept_latents_asks_the_base_once(whole, arguments, tmp_path, monkeypatch):
    kept = {"cache_dir": tmp_path / "kept", "max_train_steps": 1, "composite_share": 0, "rendered_share": 0}
    run(arguments(tmp_path / "one", "--cache_latents", **kept))
    files = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "kept").iterdir()}
    assert {name.split("-")[0] for name in files} == {"pool", "rendered", "latents", "text"}

    def fail(*_):
        raise AssertionError("asked again")

    monkeypatch.setattr("mg_diffusion.training.adapter.latents_of", fail)
    run(arguments(tmp_path / "other", "--cache_latents", **kept))
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "kept").iterdir()} == files
    one, other = (load_file(tmp_path / name / "checkpoint-1" / TRAINED) for name in ("one", "other"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    monkeypatch.undo()
    monkeypatch.setattr(diffusers, "__version__", "0.0")  # other code
    run(arguments(tmp_path / "third", "--cache_latents", **kept))
    kinds = [path.name.split("-")[0] for path in (tmp_path / "kept").iterdir()]
    assert sorted(kinds) == sorted(2 * ["pool", "rendered", "latents", "text"])


def test_the_code_of_something_is_that_of_its_whole_file(tmp_path, monkeypatch):
    (tmp_path / "made_with.py").write_text("def make():\n    return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("made_with")
    before = code_fingerprint(cached, module.make)
    assert code_fingerprint(module.make, latents_of) == before != code_fingerprint(cached)
    (tmp_path / "made_with.py").write_text("def make():\n    return 1\n# other\n")
    assert code_fingerprint(cached, module.make) != before


def test_other_weights_have_another_file(base, arguments, tmp_path):
    vae = pipeline_of(arguments(tmp_path)).vae
    before = model_fingerprint(vae)
    assert model_fingerprint(pipeline_of(arguments(tmp_path)).vae) == before
    with torch.no_grad():
        next(vae.parameters()).mul_(1.01)
    assert model_fingerprint(vae) != before
    made = [cached(tmp_path, "x", [key], lambda key=key: {"x": torch.tensor(ord(key))}) for key in "aba"]
    assert [int(one["x"]) for one in made] == [97, 98, 97]
    assert len(list(tmp_path.glob("x-*.safetensors"))) == 2


def test_embeddings_are_those_of_the_pipeline(arguments, tmp_path):
    pipeline = pipeline_of(arguments(tmp_path))
    found = text_of(pipeline, ["a rose", ""], torch.device("cpu"))
    expected = pipeline.encode_prompt("a rose", torch.device("cpu"), 1, False)[0]
    assert found.keys() == {"text"}
    torch.testing.assert_close(found["text"][:1], expected)


def test_a_base_of_a_larger_resolution_has_enlarged_crossings_at_high_noise(base, arguments, pictures, pool, tmp_path):
    """An adapter of one encoder pixel a latent cell: pictures of 64 pixels, views of 32."""
    unet = pipeline_of(arguments(tmp_path)).unet
    encoder = tiny_encoder()
    start = tmp_path / "start"
    encoder.save_pretrained(start / "mg_encoder")
    MGAdapter.from_unet(unet, encoder, token_dim=32, map_stride=1).save_pretrained(start / "mg_adapter")
    options = {"mg_model_name_or_path": start, "resolution": 64, "max_train_steps": 1}
    args = arguments(tmp_path / "run", **options)
    run(args)
    images = torch.cat([pictures.whole, pictures.crop]).repeat_interleave(2, 2).repeat_interleave(2, 3)
    stream = SampleStream(*pool, pictures.captions, 8, 0, {"composite": 0.5, "rendered": 0.0}, 4, images=images)
    objective = AdapterObjective(pipeline_of(args), 5.0, 64, 32)
    batch = objective.collate([stream[i] for i in range(8)])
    assert batch["image"].shape == (8, 3, 64, 64) and batch["structure"].shape == (8, 3, 32, 32)
    for row, item in enumerate(batch["item"].tolist()):
        if item >= 0:
            picture = images[item].float() / 127.5 - 1
            picture = picture.flip(-1) if batch["is_flipped"][row] else picture
            torch.testing.assert_close(batch["image"][row], picture)
    drawn = [
        objective.draw_timesteps(batch, [torch.Generator().manual_seed(8 * turn + row) for row in range(8)])
        for turn in range(50)
    ]
    drawn = torch.stack(drawn)
    is_crossed = batch["item"] < 0
    assert drawn[:, is_crossed].min() >= 500 and drawn[:, ~is_crossed].min() < 300 and drawn.max() < 1000


def test_what_is_no_base_or_does_not_fit_is_refused(base, arguments, tmp_path):
    with pytest.raises(ValueError, match="--pretrained_model_name_or_path must be a Stable Diffusion .*nowhere"):
        run(arguments(tmp_path / "run", pretrained_model_name_or_path=tmp_path / "nowhere"))
    broken = tmp_path / "broken"
    shutil.copytree(base, broken)
    index = json.loads((broken / "model_index.json").read_text())
    (broken / "model_index.json").write_text(json.dumps({**index, "text_encoder": [None, None]}))
    with pytest.raises(ValueError, match=r"broken' lacks \['text_encoder'\]"):
        run(arguments(tmp_path / "run", pretrained_model_name_or_path=broken))
    encoder = tiny_encoder()
    unet = tiny_components()["unet"]
    encoder.save_pretrained(tmp_path / "other" / "mg_encoder")
    layers = MGAdapter.from_unet(unet, encoder).config.attention_layers[:-1]
    adapter = MGAdapter.from_unet(unet, encoder, attention_layers=layers)
    adapter.save_pretrained(tmp_path / "other" / "mg_adapter")
    with pytest.raises(ValueError, match="does not fit the UNet"):
        run(arguments(tmp_path / "run", mg_model_name_or_path=tmp_path / "other"))


def test_a_base_from_text_alone_is_a_start_for_an_adapter(flags, arguments, tmp_path):
    output = tmp_path / "text"
    command.main([*flags("base", output, num_crossings=None, num_rendered=None), "--text_only"])
    records = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    assert {"loss", "val_loss"} <= {name for record in records for name in record}
    assert (output / "grid-000004.png").is_file()
    weights = output / "weights"
    pipeline = MGPipeline.from_pretrained(weights)
    assert pipeline.mg_encoder is None and pipeline.mg_adapter is None
    run(arguments(tmp_path / "run", pretrained_model_name_or_path=weights, max_train_steps=1))
    assert (tmp_path / "run" / "weights" / "mg_adapter" / "config.json").is_file()
