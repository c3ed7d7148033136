"""Exported IP-Adapters do in stock pipelines what the adapter's tokens do in ours."""

import json

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline, StableDiffusionPipeline, UNet2DConditionModel
from pipelines.tiny import picture, references, seeded, tiny_components
from safetensors.torch import load_file

from benchmarks.ip_adapter_share import measure
from mg_diffusion import MGAdapter, MGInpaintPipeline, MGPipeline
from mg_diffusion.ip_adapter import export, image_embeds, main, to_ip_adapters, weight_name


NAMES = ("color", "texture", "shape")
MAP = (32, 32)  # of the shape map, for latents of 8 x 8: the encoder's working size
STRENGTHS = {"color": 0.7, "texture": 1.3, "shape": 1.0}


@pytest.fixture
def ours(tmp_path):
    """make(kind): a tiny pipeline of ours whose adapter has tokens, but neither residuals nor fusion."""

    def build(kind=MGPipeline, is_inpainting=False):
        pipe = kind(**tiny_components(tmp_path, is_inpainting=is_inpainting))
        pipe.set_progress_bar_config(disable=True)
        return drop_residuals_and_fusion(pipe)

    return build


def drop_residuals_and_fusion(pipe):
    adapter = pipe.mg_adapter
    torch.nn.init.zeros_(adapter.fusion.alpha)
    for branch in (adapter.shape_residuals, adapter.texture_residuals, adapter.sketch_residuals):
        for parameter in branch.outs.parameters():
            torch.nn.init.zeros_(parameter)
    return pipe


def stock(pipe, folder, kind=StableDiffusionPipeline, names=NAMES):
    """The stock pipeline of the same base with the exported IP-Adapters, at `STRENGTHS`."""
    pipe.save_pretrained(folder / "source")
    export(folder / "source", folder / "ip", dtype=torch.float32)
    parts = {name: pipe.components[name] for name in ("vae", "text_encoder", "tokenizer", "scheduler")}
    unet = UNet2DConditionModel.from_pretrained(folder / "source", subfolder="unet")
    other = kind(**parts, unet=unet, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    other.load_ip_adapter(
        str(folder / "ip"), subfolder="", weight_name=[weight_name(name) for name in names], image_encoder_folder=None
    )
    other.set_ip_adapter_scale([STRENGTHS[name] for name in names])
    return other


def run(pipe, prompt="a red flower", **options):
    options = {"num_inference_steps": 3, "guidance_scale": 2.5, "output_type": "latent", **options}
    return pipe(prompt, generator=seeded(), **options).images


def assert_same_but_not_the_base(found, expected, base):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert (expected - base).abs().max() > 1e-2


@pytest.mark.parametrize("guidance_scale", [1.0, 2.5])
@pytest.mark.parametrize("given", [NAMES, ("texture",)], ids=["all", "one of three"])
def test_stock_pipeline_equals_ours(ours, tmp_path, guidance_scale, given):
    pipe = ours()
    reference_image = {name: reference for name, reference in references().items() if name in given}
    expected = run(pipe, reference_image=reference_image, granularity_scale=STRENGTHS, guidance_scale=guidance_scale)
    other = stock(pipe, tmp_path)
    embeds = image_embeds(pipe.mg_encoder, reference_image, MAP, guidance=guidance_scale > 1)
    found = run(other, ip_adapter_image_embeds=embeds, guidance_scale=guidance_scale)
    assert_same_but_not_the_base(found, expected, run(pipe, guidance_scale=guidance_scale))


def test_all_prompts_of_a_call_have_the_same_references(ours, tmp_path):
    pipe, prompts, reference_image = ours(), ["a red flower", "a blue flower"], {"texture": [picture(1), picture(2)]}
    expected = run(pipe, prompts, reference_image=reference_image, granularity_scale=STRENGTHS)
    found = run(
        stock(pipe, tmp_path), prompts, ip_adapter_image_embeds=image_embeds(pipe.mg_encoder, reference_image, MAP)
    )
    assert_same_but_not_the_base(found, expected, run(pipe, prompts))


def test_one_granularity_may_be_loaded_alone(ours, tmp_path):
    pipe, reference_image = ours(), {"shape": picture(4)}
    expected = run(pipe, reference_image=reference_image)
    embeds = image_embeds(pipe.mg_encoder, reference_image, MAP, granularities=("shape",))
    found = run(stock(pipe, tmp_path, names=("shape",)), ip_adapter_image_embeds=embeds)
    assert_same_but_not_the_base(found, expected, run(pipe))


def edit(pipe, side, **options):
    mask = np.zeros((side, side), np.float32)
    mask[side // 4 : -side // 4, side // 4 : -side // 4] = 1
    return run(pipe, image=picture(5, side, side), mask_image=mask, height=side, width=side, strength=1.0, **options)


def test_stock_inpainting_with_nine_channels_equals_ours(ours, tmp_path):
    pipe, reference_image = ours(MGInpaintPipeline, is_inpainting=True), references()
    expected = edit(pipe, 16, reference_image=reference_image, granularity_scale=STRENGTHS, context_scale=0.0)
    other = stock(pipe, tmp_path, StableDiffusionInpaintPipeline)
    found = edit(other, 16, ip_adapter_image_embeds=image_embeds(pipe.mg_encoder, reference_image, MAP))
    assert_same_but_not_the_base(found, expected, edit(pipe, 16, context_scale=0.0))


def loaded(pipe, exported):
    """A copy of the UNet with the IP-Adapters of `to_ip_adapters`, by the loader of diffusers."""
    unet = UNet2DConditionModel.from_config(pipe.unet.config)
    unet.load_state_dict(pipe.unet.state_dict())
    unet._load_ip_adapter_weights(list(exported.values()))
    return unet.eval()


def predict(pipe, unet, **options):
    """A prediction for fixed latents, text and time."""
    latents, text = torch.randn(1, 4, 8, 8, generator=seeded()), torch.randn(1, 5, 32, generator=seeded(1))
    with torch.no_grad():
        return unet(latents, 500, text, **options).sample


@pytest.mark.parametrize("dim", [16, 24, 32])
def test_tokens_of_any_width_up_to_that_of_the_text(ours, dim):
    """The text is 32 wide: absent granularities add nothing where tokens are at most half as wide."""
    pipe = ours()
    pipe.mg_adapter = MGAdapter.from_unet(pipe.unet, pipe.mg_encoder, num_tokens=3, token_dim=dim).eval()
    for parameter in pipe.mg_adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    adapter, features = pipe.mg_adapter, pipe.mg_encoder.encode(references(), size=MAP)
    with torch.no_grad(), adapter.attach(pipe.unet):
        folded, _ = adapter.condition(pipe.unet, features, adapter.strengths(1.0), (8, 8), fusion_scale=0.0)
        expected = predict(pipe, pipe.unet, cross_attention_kwargs={"ip_hidden_states": folded})
    base, unet = predict(pipe, pipe.unet), loaded(pipe, to_ip_adapters(adapter, 32))
    absent, embeds = (
        [row.unsqueeze(0) for row in rows]
        for rows in zip(*image_embeds(pipe.mg_encoder, references(), MAP), strict=True)
    )
    found = predict(pipe, unet, added_cond_kwargs={"image_embeds": embeds})
    assert_same_but_not_the_base(found, expected, base)
    without = (predict(pipe, unet, added_cond_kwargs={"image_embeds": absent}) - base).abs().max()
    assert without < 1e-5 if dim == 16 else without > 1e-2


def test_command_line_writes_half_precision(ours, tmp_path, capsys):
    ours().save_pretrained(tmp_path / "source")
    main([str(tmp_path / "source"), str(tmp_path / "ip")])
    assert sorted(path.name for path in (tmp_path / "ip").iterdir()) == sorted(map(weight_name, NAMES))
    weights = load_file(tmp_path / "ip" / weight_name("color"))
    assert {value.dtype for value in weights.values()} == {torch.float16}
    assert {key.partition(".")[0] for key in weights} == {"image_proj", "ip_adapter"}
    assert weight_name("shape") in capsys.readouterr().out
    before = {path: path.read_bytes() for path in (tmp_path / "ip").iterdir()}
    flags = [str(tmp_path / "source"), str(tmp_path / "ip"), "--dtype", "float32"]
    with pytest.raises(SystemExit, match="There is a file at .*--force"):
        main(flags)
    assert {path: path.read_bytes() for path in (tmp_path / "ip").iterdir()} == before
    main([*flags, "--force"])
    assert load_file(tmp_path / "ip" / weight_name("color")).popitem()[1].dtype == torch.float32


def test_an_adapter_alone_needs_the_width_of_the_text(ours, tmp_path):
    ours().mg_adapter.save_pretrained(tmp_path / "source" / "mg_adapter")
    with pytest.raises(SystemExit, match="unet/config.json.*cross_attention_dim"):
        main([str(tmp_path / "source"), str(tmp_path / "ip")])
    assert not (tmp_path / "ip").exists()
    main([str(tmp_path / "source"), str(tmp_path / "ip"), "--cross-attention-dim", "48"])
    weights = load_file(tmp_path / "ip" / weight_name("shape"))
    assert weights["ip_adapter.1.to_k_ip.weight"].shape[1] == 48


@pytest.mark.parametrize("width", [8, None, [32, 64]])
def test_tokens_wider_than_the_text_are_refused(ours, width):
    with pytest.raises(ValueError, match="token_dim.*got"):
        to_ip_adapters(ours().mg_adapter, width)


def test_the_shipped_model_is_refused(repository, tmp_path):
    with pytest.raises(ValueError, match="only_cross_attention"):
        export(repository / "hub_cards" / "mg-bazaar", tmp_path)
    assert not list(tmp_path.iterdir())


def test_references_that_no_embed_can_hold_are_refused(ours):
    encoder = ours().mg_encoder
    with pytest.raises(ValueError, match="region.*ip_adapter_masks"):
        image_embeds(encoder, {"color": {"image": picture(), "region": (0, 0, 0.5, 1)}}, MAP)
    with pytest.raises(ValueError, match="'shape', of which no IP-Adapter"):
        image_embeds(encoder, references(), MAP, granularities=("color", "texture"))


def test_shares_of_an_adapter_without_residuals(ours):
    pool = [np.asarray(picture(seed, 16, 16), np.float32) / 255 for seed in range(3)]
    for parts in measure(ours(), pool, 2).values():
        for name, explained in (("tokens", 1), ("tokens_without_fusion", 1), ("residuals", 0)):
            assert parts[name] == pytest.approx({"size": explained, "explained": explained}, abs=1e-5)


def test_page_quotes_what_was_measured(repository):
    measured = json.loads(
        (repository / "hub_cards" / "mg-bazaar" / "ip_adapter_share.json").read_text(encoding="utf-8")
    )
    page = (repository / "docs" / "ip-adapter.md").read_text(encoding="utf-8").splitlines()
    for place in ("early", "middle", "late"):
        (row,) = (line for line in page if line.startswith(f"| {place},"))
        parts = (measured[place][name] for name in ("tokens", "tokens_without_fusion", "residuals"))
        cells = [f"{part['size']:.2f}, {part['explained']:.2f}" for part in parts]
        assert row.split(" | ")[1:] == [*cells[:-1], f"{cells[-1]} |"]
