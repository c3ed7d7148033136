"""New components fit each other, and everything in them is trained."""

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from tokenizers import pre_tokenizers

from mg_diffusion.training.models import MAX_TOKENS, TrainedModel, build_components, build_tokenizer, learn_merges
from mg_diffusion.training.objective import Objective, target_of, weight_of
from mg_diffusion.training.samples import SampleStream, views_of
from mg_diffusion.training.seeding import SeededSamples
from mg_diffusion.training.vae import build_vae
from mg_diffusion.training.validation import BUCKETS, validation_loss


CAPTIONS = ["a photo of daisies", "a photo of a red shirt", "green apples, 12"]


def components_of(vae=None):
    return build_components(CAPTIONS, 32, [32, 32], 32, vae)


def save_vae(folder, levels):
    build_vae(4, [16] * levels, 32).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(CAPTIONS)


@pytest.mark.parametrize("text", [*CAPTIONS, "zürich", "unheard of wörds", "你好 ωμέγα", "x"])
def test_every_text_comes_back_without_unknown_tokens(tokenizer, text):
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
    assert tokenizer.unk_token_id not in ids[1:-1]
    assert tokenizer.decode(ids[1:-1]).replace(" ", "") == text.replace(" ", "")


def test_every_process_builds_the_same_tokenizer(tokenizer, monkeypatch):
    """A resumed run builds it anew; its weights know words by their number."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    for order in (alphabet, alphabet[::-1]):
        monkeypatch.setattr(pre_tokenizers.ByteLevel, "alphabet", lambda order=order: order)
        again = build_tokenizer(CAPTIONS)
        assert again.get_vocab() == tokenizer.get_vocab()
        assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_frequent_pairs_are_merged_first_and_the_vocabulary_has_a_limit():
    assert learn_merges(["ab ab abc b", "AB"], 2) == [("a", "b</w>"), ("b", "c</w>")]
    assert learn_merges(["aaaa"], 9) == [("a", "a"), ("aa", "a"), ("aaa", "a</w>")]
    many = [f"{first}{second}q" for first in "abcdefghijklmnopqrstuvwxyz" for second in "abcdefghijklmnopqrstuvwxyz"]
    assert len(build_tokenizer(many, 560)) == 560


def test_known_words_are_short_and_all_texts_are_padded_to_one_length(tokenizer):
    assert len(tokenizer("a photo of daisies").input_ids) == 6
    batch = tokenizer(
        ["", "photo", "photo " * 99], padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    )
    assert batch.input_ids.shape == (3, 24) and tokenizer.model_max_length == 24
    assert batch.input_ids.max() < len(tokenizer) and (batch.input_ids[:, -1] == tokenizer.eos_token_id).all()
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))


@pytest.mark.parametrize("levels, factor", [(None, 2), (1, 1), (2, 2), (3, 4)])
def test_components_fit_each_other_and_train_as_one_module(levels, factor, tmp_path, pool, pictures):
    torch.manual_seed(0)
    components = components_of(None if levels is None else save_vae(tmp_path, levels))
    adapter, unet = components["mg_adapter"], components["unet"]
    assert adapter.config.map_stride == factor and unet.config.sample_size == 32 // factor
    assert adapter.map_size(32 // factor, 32 // factor) == (32, 32)
    assert not any(parameter.requires_grad for parameter in components["vae"].parameters())
    model = TrainedModel(*(components[name] for name in ("unet", "text_encoder", "mg_encoder", "mg_adapter")))
    objective = Objective(components, 16.0)
    stream = SampleStream(*pool, pictures.captions, 4, 0, {"composite": 0.3, "rendered": 0.3}, 16)
    batch = objective.collate([stream[i] for i in range(2)])
    batch["present"] = torch.ones(2, 3, dtype=torch.bool)
    noise = torch.randn(2, components["vae"].config.latent_channels, 32 // factor, 32 // factor)
    steps = torch.tensor([200, 999])
    with adapter.attach(unet):
        loss = objective(model, batch, steps, noise, 1.0)
        assert loss.shape == (2,) and torch.isfinite(loss).all() and (loss > 0).all()
        if levels is not None:
            return
        # What starts at zero hides what lies before it for some steps.
        learning = torch.optim.SGD(model.parameters(), lr=0.1)
        untouched = dict(model.named_parameters())
        for _ in range(4):
            learning.zero_grad()
            objective(model, batch, steps, noise, 1.0).mean().backward()
            grown = [name for name, p in untouched.items() if p.grad is not None and p.grad.abs().max() > 0]
            untouched = {name: p for name, p in untouched.items() if name not in grown}
            learning.step()
    assert not untouched, sorted(untouched)


def test_the_prediction_has_the_shape_of_the_latents_and_does_not_see_what_is_dropped(pool, pictures):
    components = components_of()
    model = TrainedModel(*(components[name] for name in ("unet", "text_encoder", "mg_encoder", "mg_adapter"))).eval()
    for parameter in model.mg_adapter.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    stream = SampleStream(*pool, pictures.captions, 4, 0, {"composite": 0.5, "rendered": 0.5}, 16, augment=False)
    one, other = ({**stream[i]} for i in range(2))
    batches = [Objective(components, 16.0).collate([dict(sample)]) for sample in (one, other)]
    noisy, steps = torch.randn(1, 25, 16, 16), torch.tensor([500])

    def predict(batch, present):
        kept = torch.tensor([present])
        layout = (batch[name] for name in ("turn", "sketch", "has_sketch"))
        return model(noisy, steps, batches[0]["input_ids"], views_of(batch), *layout, kept, 1.0)

    with torch.no_grad(), model.mg_adapter.attach(model.unet):
        dropped = [predict(batch, [False] * 3) for batch in batches]
        kept = [predict(batch, [True] * 3) for batch in batches]
    assert kept[0].shape == (1, 12, 16, 16)
    torch.testing.assert_close(*dropped)
    assert (kept[0] - kept[1]).abs().max() > 1e-3 and (kept[0] - dropped[0]).abs().max() > 1e-3


def test_a_sketch_that_context_knows_replaces_the_one_that_is_laid(pool, pictures, monkeypatch):
    components = components_of()
    model = TrainedModel(*(components[name] for name in ("unet", "text_encoder", "mg_encoder", "mg_adapter"))).eval()
    stream = SampleStream(*pool, pictures.captions, 4, 0, {"composite": 1.0, "rendered": 0.0}, 16, augment=False)
    batch = Objective(components, 16.0).collate([{**stream[i]} for i in range(2)])
    batch["sketch"], seen = torch.rand_like(batch["image"]) * 50, []
    batch["has_sketch"] = torch.tensor([False, True])
    read = model.mg_adapter.sketch_residuals.forward
    monkeypatch.setattr(
        model.mg_adapter.sketch_residuals,
        "forward",
        lambda sketch, sizes: (seen.append(sketch), read(sketch, sizes))[1],
    )
    layout = (batch[name] for name in ("turn", "sketch", "has_sketch"))
    inputs = torch.randn(2, 25, 16, 16), torch.tensor([500, 500]), batch["input_ids"], views_of(batch)
    with torch.no_grad(), model.mg_adapter.attach(model.unet):
        model(*inputs, *layout, torch.ones(2, 3, dtype=torch.bool), 1.0)
    middle = torch.tensor([50.0, 0.0, 0.0]).view(3, 1, 1)
    torch.testing.assert_close(seen[0][1] * 50 + middle, batch["sketch"][1])
    assert (seen[0][0] * 50 + middle - batch["sketch"][0]).abs().mean() > 5


@pytest.mark.parametrize("levels", [None, 1, 3])
def test_noise_has_the_shape_of_the_latents_and_costs_no_encoding(levels, tmp_path, monkeypatch, pool, pictures):
    """All that is drawn for a sample comes from its own seed, which runs of several processes rely on."""
    components = components_of(None if levels is None else save_vae(tmp_path, levels))
    model = TrainedModel(*(components[name] for name in ("unet", "text_encoder", "mg_encoder", "mg_adapter")))
    objective = Objective(components, 16.0)
    stream = SeededSamples(SampleStream(*pool, pictures.captions, 4, 0, {"composite": 0.3, "rendered": 0.3}, 16), 0)
    batch = objective.collate([stream[i] for i in range(2)])
    shape = objective.latents(batch["image"]).shape
    assert objective.latent_shape(batch["image"]) == tuple(shape)

    encode, encoded = objective.vae.encode, []
    monkeypatch.setattr(objective.vae, "encode", lambda images: encoded.append(images) or encode(images))
    with torch.no_grad(), components["mg_adapter"].attach(components["unet"]):
        loss = objective.training_loss(model, batch)
        assert len(encoded) == 2  # the picture, and the picture without what is repainted
        apart = [objective.training_loss(model, objective.collate([stream[i]])) for i in reversed(range(2))]
        torch.testing.assert_close(torch.stack(apart).mean(), loss)
        assert torch.equal(objective.training_loss(model, batch), loss)
        encoded.clear()
        validation_loss(objective, model, [stream[i] for i in range(2)], torch.device("cpu"))
    assert len(encoded) == 2 * BUCKETS


def test_a_folder_without_a_vae_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"No AutoencoderKL can be loaded from .*nowhere.*\(--vae\)"):
        components_of(str(tmp_path / "nowhere"))


def test_another_prediction_type_is_refused():
    components = components_of()
    components["scheduler"].register_to_config(prediction_type="flow_prediction")
    with pytest.raises(ValueError, match="predicts epsilon, .* this is DDIMScheduler with 'flow_prediction'"):
        Objective(components, 16.0)
    with pytest.raises(ValueError, match="needs a scheduler with `alphas_cumprod`.* this is FlowMatchEuler"):
        Objective({**components, "scheduler": FlowMatchEulerDiscreteScheduler()}, 16.0)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_every_prediction_type_has_the_same_target_and_a_weight_at_every_noise_level(kind):
    """A prediction of x0 that is wrong by as much costs the same by v and by x0; by epsilon what Min-SNR says."""
    alpha_bar = torch.tensor([0.999, 0.5, 1e-3]).view(-1, 1, 1, 1)
    clean, noise = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    noisy = alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * noise
    scheduler = DDPMScheduler()
    scheduler.alphas_cumprod = alpha_bar.flatten()
    target = target_of(scheduler, kind, clean, noise, torch.arange(3))
    assert torch.equal(scheduler.add_noise(clean, noise, torch.arange(3)), noisy)
    if kind == "epsilon":
        original = (noisy - (1 - alpha_bar).sqrt() * target) / alpha_bar.sqrt()
    elif kind == "v_prediction":
        original = alpha_bar.sqrt() * noisy - (1 - alpha_bar).sqrt() * target
    else:
        original = target
    torch.testing.assert_close(original, clean, atol=1e-4, rtol=1e-4)
    # Of a unit error of x0, by the weight of what is predicted.
    error = {"epsilon": alpha_bar / (1 - alpha_bar), "v_prediction": 1 / (1 - alpha_bar), "sample": torch.ones(())}[
        kind
    ]
    cost = weight_of(kind, alpha_bar, 5.0) * error
    snr = alpha_bar / (1 - alpha_bar)
    expected = snr.clamp(max=5.0) if kind == "epsilon" else (snr + 1).clamp(max=5.0)
    torch.testing.assert_close(cost.expand_as(expected), expected)
