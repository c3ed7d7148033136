"""The table of docs/compatibility.md, row by row: what works has its effect beside references, what is refused says so."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    DiffusionPipeline,
    MultiAdapter,
    StableDiffusionAdapterPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    T2IAdapter,
    UNet2DConditionModel,
)
from diffusers.callbacks import IPAdapterScaleCutoffCallback
from diffusers.models import MultiControlNetModel
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from mg_diffusion.pipelines import MGInpaintPipeline, MGPipeline

from .tiny import SIZE, picture, references, seeded, tiny_adapter, tiny_encoder, tiny_unet


PAGE = Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"
CPU = torch.device("cpu")
IMAGE = picture(4, SIZE, SIZE)
OTHER = picture(6, SIZE, SIZE)
NAMES = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")


def run(pipeline, prompt="a red flower", **options):
    """Latents of two steps with guidance."""
    defaults = {"num_inference_steps": 2, "generator": seeded(), "output_type": "latent", "guidance_scale": 2.0}
    return pipeline(prompt, **{**defaults, **options}).images


def stock(pipeline, kind=StableDiffusionPipeline, **more) -> DiffusionPipeline:
    parts = {name: pipeline.components[name] for name in NAMES}
    parts |= {name: pipeline.components[name] for name in ("image_encoder", "feature_extractor")}
    made = kind(**parts, safety_checker=None, requires_safety_checker=False, **more)
    made.set_progress_bar_config(disable=True)
    return made


# -- things to go with -----------------------------------------------------------------------------------------------
def lora(unet, seed: int) -> dict[str, torch.Tensor]:
    """A LoRA of every query and output projection."""
    state, generator = {}, torch.Generator().manual_seed(seed)
    for name, module in unet.named_modules():
        if isinstance(module, torch.nn.Linear) and name.endswith(("to_q", "to_out.0")):
            sizes = {"A": (2, module.in_features), "B": (module.out_features, 2)}
            for part, size in sizes.items():
                state[f"unet.{name}.lora_{part}.weight"] = 0.3 * torch.randn(size, generator=generator)
    return state


def load_loras(pipeline) -> dict:
    pytest.importorskip("peft")
    states = {name: lora(pipeline.unet, seed) for seed, name in enumerate("ab")}
    for name, state in states.items():
        pipeline.load_lora_weights(state, adapter_name=name)
    return {}


def two_loras(pipeline) -> dict:
    load_loras(pipeline)
    pipeline.set_adapters(["a", "b"], [0.7, 0.4])
    return {}


def fused_lora(pipeline) -> dict:
    load_loras(pipeline)
    pipeline.fuse_lora(lora_scale=0.8, adapter_names=["b"])
    return {}


def ip_adapter(unet, dim=16, tokens=4) -> dict:
    """Weights of a small IP-Adapter, as its files have them."""
    generator, width = torch.Generator().manual_seed(5), unet.config.cross_attention_dim
    projection = {
        "proj.weight": torch.randn(tokens * width, dim, generator=generator),
        "proj.bias": torch.randn(tokens * width, generator=generator),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    layers = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    weights = {}
    for place, layer in enumerate(layers):
        size = unet.get_submodule(layer.removesuffix(".processor")).to_k.weight.shape
        for part in ("k", "v"):
            weights[f"{2 * place + 1}.to_{part}_ip.weight"] = 0.3 * torch.randn(size, generator=generator)
    return {"image_proj": projection, "ip_adapter": weights}


def with_ip_adapter(pipeline, is_read=True) -> dict:
    """Load one, with an image encoder to read its image if asked for."""
    if is_read:
        config = CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=37,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=SIZE,
            patch_size=8,
            projection_dim=16,
        )
        torch.manual_seed(7)
        pipeline.register_modules(image_encoder=CLIPVisionModelWithProjection(config).eval())
    pipeline.load_ip_adapter(ip_adapter(pipeline.unet), None, None, image_encoder_folder=None)
    return {"ip_adapter_image": IMAGE} if is_read else {}


def ip_embeds(pipeline) -> dict:
    with_ip_adapter(pipeline)
    return {"ip_adapter_image_embeds": pipeline.prepare_ip_adapter_image_embeds(IMAGE, None, CPU, 1, True)}


def ip_scaled(pipeline) -> dict:
    options = with_ip_adapter(pipeline)
    pipeline.set_ip_adapter_scale(0.3)
    return options


def ip_masked(pipeline) -> dict:
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., : SIZE // 2] = 1
    return {**with_ip_adapter(pipeline), "cross_attention_kwargs": {"ip_adapter_masks": [mask]}}


def control_net(unet, seed=0, **config) -> ControlNetModel:
    """One that reads latents, whatever else the UNet reads."""
    torch.manual_seed(seed)
    if unet.config.in_channels != unet.config.out_channels:
        unet = tiny_unet(unet.config.out_channels, is_inpainting=False)
    net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8)).eval()
    net.register_to_config(**config)
    for parameter in net.parameters():
        if not parameter.abs().sum():  # what starts at zero
            torch.nn.init.normal_(parameter, std=0.1)
    return net


def t2i_adapter(channels=(32, 64), factor=2, seed=0) -> T2IAdapter:
    torch.manual_seed(seed)
    return T2IAdapter(3, list(channels), num_res_blocks=1, downscale_factor=factor).eval()


def controlled(pipeline) -> dict:
    return {
        "controlnet": control_net(pipeline.unet),
        "control_image": IMAGE,
        "controlnet_conditioning_scale": 0.6,
        "control_guidance_end": 0.5,
    }


def controlled_twice(pipeline) -> dict:
    return {
        "controlnet": MultiControlNetModel([control_net(pipeline.unet, seed) for seed in (0, 1)]),
        "control_image": [IMAGE, OTHER],
        "controlnet_conditioning_scale": [0.6, 1.2],
        "control_guidance_start": [0.0, 0.5],
    }


def adapted(pipeline) -> dict:
    return {"t2i_adapter": t2i_adapter(), "t2i_image": IMAGE, "adapter_conditioning_scale": 0.7}


def adapted_twice(pipeline) -> dict:
    both = MultiAdapter([t2i_adapter(seed=seed) for seed in (0, 1)])
    return {"t2i_adapter": both, "t2i_image": [IMAGE, OTHER], "adapter_conditioning_scale": [0.7, 0.3]}


def renamed(options: dict, **names: str) -> dict:
    return {names.get(name, name): value for name, value in options.items() if names.get(name, name)}


def of_control_net(pipeline, options):
    net = options["controlnet"]
    options = renamed(options, controlnet="", control_image="image")
    return run(stock(pipeline, StableDiffusionControlNetPipeline, controlnet=net), **options)


def of_t2i_adapter(pipeline, options):
    adapter = options["t2i_adapter"]
    parts = {name: pipeline.components[name] for name in NAMES}
    made = StableDiffusionAdapterPipeline(
        **parts, adapter=adapter, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    made.set_progress_bar_config(disable=True)
    return run(made, **renamed(options, t2i_adapter="", t2i_image="image"))


def inverted(pipeline) -> dict:
    vector = torch.randn(32, generator=seeded(3))
    pipeline.load_textual_inversion({"<x>": vector}, token="<x>")
    return {"prompt": "a <x>"}


def changed_unet(change: Callable) -> Callable:
    """A preparation that does something to the UNet, or puts another in its place."""

    def prepare(pipeline) -> dict:
        other = change(pipeline.unet)
        if isinstance(other, torch.nn.Module):
            pipeline.unet = other
        return {}

    return prepare


def quantized_by_torch(unet):
    return torch.ao.quantization.quantize_dynamic(unet, {torch.nn.Linear}, dtype=torch.qint8)


def quantized_by_torchao(unet):
    quantization = pytest.importorskip("torchao.quantization")
    quantization.quantize_(unet, quantization.Int8WeightOnlyConfig())


def quantized_by_quanto(unet):
    quanto = pytest.importorskip("optimum.quanto")
    quanto.quantize(unet, weights=quanto.qint8)
    quanto.freeze(unet)


def quantized_by_bitsandbytes(unet):
    library = pytest.importorskip("bitsandbytes")
    for name, linear in [(n, m) for n, m in unet.named_modules() if type(m) is torch.nn.Linear]:
        parent, _, place = name.rpartition(".")
        other = library.nn.Linear8bitLt(
            linear.in_features, linear.out_features, linear.bias is not None, has_fp16_weights=False
        )
        other.load_state_dict(linear.state_dict())
        setattr(unet.get_submodule(parent), place, other.to(CPU))  # which quantizes


def offloaded_by_accelerate(unet):
    accelerate = pytest.importorskip("accelerate")
    accelerate.cpu_offload(unet, execution_device=CPU)


def offloaded_in_sequence(pipeline) -> None:
    """What the method does, which itself names the device "cpu:0", where accelerate then fails in any pipeline."""
    accelerate = pytest.importorskip("accelerate")
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module) and name not in pipeline._exclude_from_cpu_offload:
            accelerate.cpu_offload(part, CPU, offload_buffers=bool(part._parameters))


def grouped(kind: str, **options) -> Callable:
    def offload(unet):
        groups = {"num_blocks_per_group": 1} if kind == "block_level" else {}
        unet.enable_group_offload(CPU, offload_device=CPU, offload_type=kind, **groups, **options)

    return changed_unet(offload)


def sliced_vae(pipeline) -> dict:
    pipeline.vae.enable_slicing()
    pipeline.vae.enable_tiling()
    return {}


def with_backend(pipeline) -> dict:
    pipeline.unet.set_attention_backend("_native_math")
    return {}


def has_hooks(pipeline) -> bool:
    return any(hasattr(module, "_diffusers_hook") or hasattr(module, "_hf_hook") for module in pipeline.unet.modules())


def has_processors(kind: str) -> Callable[[DiffusionPipeline], bool]:
    return lambda pipeline: {type(p).__name__ for p in pipeline.unet.attn_processors.values()} == {kind}


# -- what more there is to check --------------------------------------------------------------------------------------
def unfusing_undoes_it(pipeline, options):
    pipeline.unfuse_lora()
    pipeline.unload_lora_weights()
    found = run(pipeline, reference_image=references())
    torch.testing.assert_close(found, run(pipeline.untouched, reference_image=references()), atol=1e-4, rtol=1e-3)


def without_scale_there_is_no_lora(pipeline, options):
    off = run(pipeline, reference_image=references(), cross_attention_kwargs={"scale": 0.0})
    torch.testing.assert_close(off, run(pipeline.untouched, reference_image=references()), atol=1e-4, rtol=1e-3)


def a_callback_may_cut_it_off(pipeline, options):
    cut = IPAdapterScaleCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=0)
    whole = run(pipeline, reference_image=references(), **options)
    assert not torch.equal(run(pipeline, reference_image=references(), callback_on_step_end=cut, **options), whole)
    pipeline.set_ip_adapter_scale(0.0)
    off = run(pipeline, reference_image=references(), **options)
    assert torch.equal(off, run(pipeline.untouched, reference_image=references()))


def another_vector_is_another_picture(pipeline, options):
    found = run(pipeline, reference_image=references(), **options)
    pipeline.text_encoder.get_input_embeddings().weight.data[-1] *= -1
    assert not torch.equal(run(pipeline, reference_image=references(), **options), found)


def the_default_backend_comes_back(pipeline, options):
    _AttentionBackendRegistry.set_active_backend(AttentionBackendName.NATIVE)
    assert _AttentionBackendRegistry.get_active_backend()[0] == AttentionBackendName.NATIVE


def strengths_compile_nothing(pipeline, options):
    """References of all kinds, and none, have been compiled; now strengths change."""
    texture = {"texture": references()["texture"]}
    with torch._dynamo.config.patch(error_on_recompile=True):
        for scale in (0.3, 2, {"color": 0.1}, {"texture": 0.0, "shape": 1.7}, {"color": [0.4]}):
            run(pipeline, reference_image=references(), granularity_scale=scale)
        for schedule in ({"color": (0.0, 0.5)}, {"shape": [1.0, 0.2], "texture": lambda fraction: fraction}):
            run(pipeline, reference_image=references(), granularity_schedule=schedule)
        run(pipeline, reference_image=references(5), fusion_scale=0.0)
        run(pipeline, reference_image=texture)
        run(pipeline)
        with pytest.raises(Exception, match="[Rr]ecompil"):
            run(pipeline, reference_image={"color": references()["color"]})  # which brings no residuals
    torch._dynamo.reset()


def blocks_compile_together(pipeline, options):
    """More blocks of one size than a function may be compiled anew for."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16,),
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        layers_per_block=1,
        transformer_layers_per_block=4,
        attention_head_dim=8,
        norm_num_groups=8,
        cross_attention_dim=16,
    ).eval()
    encoder = tiny_encoder()
    adapter = tiny_adapter(unet, encoder)
    assert len(adapter.config.attention_layers) > torch._dynamo.config.recompile_limit
    features = encoder.encode({"color": ["#c1121f", "#fdf0d5"]}, adapter.map_size(8, 8), 1)
    folded, _ = adapter.condition(unet, features, torch.ones(2, 3), (8, 8))
    inputs = (torch.randn(2, 4, 8, 8), torch.tensor(500), torch.randn(2, 5, 16))
    passed = {"cross_attention_kwargs": {"ip_hidden_states": folded}}
    with torch.no_grad(), adapter.attach(unet):
        expected = unet(*inputs, **passed).sample
    unet.compile_repeated_blocks(fullgraph=True, backend="eager")
    with torch.no_grad():
        with adapter.attach(unet):
            torch.testing.assert_close(unet(*inputs, **passed).sample, expected)
        assert not torch.allclose(unet(*inputs).sample, expected, atol=1e-3)
    torch._dynamo.reset()


@dataclass
class Item:
    """One row that works."""

    prepare: Callable[[DiffusionPipeline], dict | None]  # does what the row says; returns arguments of calls
    stock: Callable | None = lambda pipeline, options: run(stock(pipeline), **options)
    is_on: Callable[[DiffusionPipeline], bool] | None = None  # of what changes no picture: whether it is in force
    more: Callable[[DiffusionPipeline, dict], None] | None = None
    options: dict[str, Any] | None = None  # of all calls


WORKS = {
    "`load_lora_weights`, `set_adapters`": Item(two_loras),
    "`fuse_lora`, `unfuse_lora`": Item(fused_lora, more=unfusing_undoes_it),
    '`cross_attention_kwargs={"scale": ...}`': Item(
        lambda p: {**two_loras(p), "cross_attention_kwargs": {"scale": 0.5}}, more=without_scale_there_is_no_lora
    ),
    "`load_ip_adapter`, `ip_adapter_image`": Item(with_ip_adapter),
    "`ip_adapter_image_embeds`": Item(ip_embeds),
    "`set_ip_adapter_scale`": Item(ip_scaled, more=a_callback_may_cut_it_off),
    "`ip_adapter_masks`": Item(ip_masked),
    "ControlNet": Item(controlled, of_control_net),
    "several ControlNets": Item(controlled_twice, of_control_net),
    "T2I-Adapter": Item(adapted, of_t2i_adapter),
    "several T2I-Adapters": Item(adapted_twice, of_t2i_adapter),
    "`load_textual_inversion`": Item(inverted, more=another_vector_is_another_picture),
    "FreeU": Item(lambda p: p.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)),
    "`clip_skip`": Item(lambda p: {"clip_skip": 1}, stock=None),  # which fails there, diffusers issue 14124
    "`set_attention_backend`": Item(
        with_backend,
        is_on=lambda p: _AttentionBackendRegistry.get_active_backend()[0] == AttentionBackendName._NATIVE_MATH,
        more=the_default_backend_comes_back,
    ),
    "attention slicing": Item(lambda p: p.enable_attention_slicing(1), is_on=has_processors("SlicedAttnProcessor")),
    "`fuse_qkv_projections`": Item(lambda p: p.fuse_qkv_projections(), is_on=has_processors("FusedAttnProcessor2_0")),
    "VAE slicing and tiling": Item(
        sliced_vae,
        options={"output_type": "pt", "height": 2 * SIZE, "width": 2 * SIZE, "num_images_per_prompt": 2},
    ),
    "`enable_model_cpu_offload`": Item(lambda p: p.enable_model_cpu_offload(device=CPU), stock=None, is_on=has_hooks),
    "`enable_sequential_cpu_offload`": Item(offloaded_in_sequence, is_on=has_hooks),
    "accelerate's `cpu_offload` of the UNet": Item(changed_unet(offloaded_by_accelerate), is_on=has_hooks),
    "group offloading by blocks": Item(grouped("block_level"), is_on=has_hooks),
    "group offloading by leaves": Item(grouped("leaf_level"), is_on=has_hooks),
    "layerwise casting": Item(
        changed_unet(lambda unet: unet.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32))
    ),
    "`torch.compile(fullgraph=True)`": Item(
        changed_unet(lambda unet: torch.compile(unet, backend="eager", fullgraph=True, dynamic=False)),
        is_on=lambda p: hasattr(p.unet, "_orig_mod"),
        more=strengths_compile_nothing,
    ),
    "`compile_repeated_blocks(fullgraph=True)`": Item(
        changed_unet(lambda unet: unet.compile_repeated_blocks(backend="eager", fullgraph=True)),
        is_on=lambda p: any(m._compiled_call_impl is not None for m in p.unet.modules()),
        more=blocks_compile_together,
    ),
    "torch's dynamic quantization": Item(changed_unet(quantized_by_torch)),
    "torchao": Item(changed_unet(quantized_by_torchao)),
    "optimum-quanto": Item(changed_unet(quantized_by_quanto)),
    "bitsandbytes": Item(changed_unet(quantized_by_bitsandbytes)),
}


def with_replaced(replace: Callable) -> Callable:
    def prepare(pipeline) -> dict:
        options = with_ip_adapter(pipeline)
        replace(pipeline)
        return options

    return prepare


def other_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=8,
        norm_num_groups=8,
        cross_attention_dim=32,
    )


def given_bytes(pipeline) -> dict:
    return {**controlled(pipeline), "control_image": np.asarray(IMAGE).astype(np.float32)}


def embeds_without_negative_ones(pipeline) -> dict:
    options = ip_embeds(pipeline)
    return {"ip_adapter_image_embeds": [each[:1] for each in options["ip_adapter_image_embeds"]]}


def blocks_on_disk(pipeline, folder) -> dict:
    return grouped("block_level", offload_to_disk_path=str(folder))(pipeline)


REFUSED = {
    "`ip_adapter_image` without an IP-Adapter": lambda p: {"ip_adapter_image": IMAGE},
    "an IP-Adapter without its image": lambda p: with_ip_adapter(p, is_read=False),
    "`ip_adapter_image` and `ip_adapter_image_embeds`": lambda p: {**ip_embeds(p), "ip_adapter_image": IMAGE},
    "images for another number of IP-Adapters": lambda p: {**with_ip_adapter(p), "ip_adapter_image": [IMAGE, IMAGE]},
    "`ip_adapter_image` without an image encoder": lambda p: (
        with_ip_adapter(p, is_read=False) | {"ip_adapter_image": IMAGE}
    ),
    "`ip_adapter_image_embeds` of another shape": embeds_without_negative_ones,
    "attention slicing after `load_ip_adapter`": with_replaced(lambda p: p.enable_attention_slicing(1)),
    "`fuse_qkv_projections` after `load_ip_adapter`": with_replaced(lambda p: p.fuse_qkv_projections(vae=False)),
    "a ControlNet without its image": lambda p: {**controlled(p), "control_image": None},
    "a T2I-Adapter as ControlNet": lambda p: {**controlled(p), "controlnet": t2i_adapter()},
    "a ControlNet of another type of numbers": lambda p: (
        controlled(p) | {"controlnet": control_net(p.unet).to(torch.bfloat16)}
    ),
    "a ControlNet on another device": lambda p: {**controlled(p), "controlnet": control_net(p.unet).to("meta")},
    "a ControlNet that needs guess mode": lambda p: (
        controlled(p) | {"controlnet": control_net(p.unet, global_pool_conditions=True)}
    ),
    "a ControlNet of another UNet": lambda p: {**controlled(p), "controlnet": control_net(other_unet())},
    "control images for another number of prompts": lambda p: {**controlled(p), "control_image": [IMAGE, IMAGE]},
    "a control image of bytes": given_bytes,
    "several ControlNets and one image": lambda p: {**controlled_twice(p), "control_image": IMAGE},
    "several ControlNets and another number of strengths": lambda p: (
        controlled_twice(p) | {"controlnet_conditioning_scale": [1.0]}
    ),
    "a window that ends before it starts": lambda p: {**controlled(p), "control_guidance_start": 0.7},
    "a T2I-Adapter of another UNet": lambda p: {**adapted(p), "t2i_adapter": t2i_adapter((16, 64))},
    "a T2I-Adapter and a size that it cannot halve": lambda p: (
        adapted(p) | {"t2i_adapter": t2i_adapter(factor=4), "height": 18}
    ),
    "a factor above 1": lambda p: {**adapted(p), "adapter_conditioning_factor": 1.5},
    "group offloading of blocks to disk": blocks_on_disk,
}


def rows() -> list[tuple[str, str]]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    table = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines if line.startswith("| ")]
    return [(line[0], line[1].removesuffix(" |").strip()) for line in table if line[0] != "item"]


def test_the_page_has_a_row_for_each_and_no_other():
    assert [name for name, verdict in rows() if verdict == "works"] == list(WORKS)
    assert [name for name, verdict in rows() if verdict != "works"] == list(REFUSED)


def test_leaves_may_be_offloaded_to_disk(make, tmp_path):
    pipeline, given = make(), {"reference_image": references()}
    expected = run(pipeline, **given)
    grouped("leaf_level", offload_to_disk_path=str(tmp_path))(pipeline)
    assert any(tmp_path.iterdir())
    torch.testing.assert_close(run(pipeline, **given), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("offload", [lambda p: p.enable_model_cpu_offload(device=CPU), offloaded_in_sequence])
def test_offloading_leaves_encoder_and_adapter_where_it_computes(make, offload):
    """It moves a model when its `forward` begins; of these two the pipelines use other methods as well."""
    pipeline = make()
    offload(pipeline)
    hooked = {name for name, part in pipeline.components.items() if hasattr(part, "_hf_hook")}
    assert hooked >= {"unet", "vae", "text_encoder"} and not hooked & {"mg_encoder", "mg_adapter"}


def is_apart(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool(torch.isfinite(one).all()) and (one - other).abs().max().item() > 1e-3


@pytest.mark.parametrize("name", [name for name, verdict in rows() if verdict == "works"])
def test_what_works_has_its_effect_beside_references(make, name):
    item, given = WORKS[name], {"reference_image": references()}
    pipeline, always = make(), item.options or {}
    pipeline.untouched = make()
    steered = run(pipeline.untouched, **given, **always)
    options = item.prepare(pipeline)
    options = {**always, **(options if isinstance(options, dict) else {})}
    together, alone = (run(pipeline, **more, **options) for more in (given, {}))
    if item.is_on is None:
        assert is_apart(together, steered)
    else:
        assert item.is_on(pipeline)
        torch.testing.assert_close(together, steered, atol=1e-4, rtol=1e-3)
    assert is_apart(together, alone)
    assert torch.equal(run(pipeline, **given, granularity_scale=0.0, **options), alone)
    if item.stock is not None:
        assert torch.equal(item.stock(pipeline, options), alone)
    if item.more is not None:
        item.more(pipeline, options)


@pytest.mark.parametrize(("name", "message"), [row for row in rows() if row[1] != "works"], ids=lambda row: row[:40])
def test_what_is_refused_says_so(make, tmp_path, name, message):
    pipeline, calls = make(), []
    pipeline.unet.register_forward_pre_hook(lambda *_: calls.append(1))
    prepare = REFUSED[name]
    options = prepare(pipeline, tmp_path) if prepare is blocks_on_disk else prepare(pipeline)
    with pytest.raises(ValueError) as refused:
        run(pipeline, reference_image=references(), **options)
    assert message.strip('"') in str(refused.value) and not calls


# -- more than one at a time ------------------------------------------------------------------------------------------
def everything(pipeline) -> dict:
    return {**controlled(pipeline), **adapted(pipeline), **with_ip_adapter(pipeline)}


def test_every_row_of_guidance_gets_the_other_adapters_of_the_conditional_row(make):
    """A contrast to the very reference that is given is no contrast, whatever goes with it."""
    pipeline = make()
    options = {"reference_image": references(), "num_images_per_prompt": 2, **everything(pipeline)}
    plain = run(pipeline, **options)
    same = {"negative_reference_image": {"color": references()["color"]}, "granularity_guidance": {"color": 3.0}}
    torch.testing.assert_close(run(pipeline, **options, **same), plain, atol=1e-3, rtol=1e-3)
    assert is_apart(run(pipeline, **options, granularity_guidance={"color": 3.0}), plain)


@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
def test_every_prompt_has_its_own_control_image(make, guidance_scale):
    pipeline, images = make(), [IMAGE, OTHER]
    options = {**adapted(pipeline), **controlled(pipeline), "guidance_scale": guidance_scale}
    options["reference_image"] = {"color": references()["color"]}
    both = {**options, "control_image": images, "t2i_image": images}
    batch = run(pipeline, ["a", "b"], num_images_per_prompt=2, **{**both, "generator": list(map(seeded, range(4)))})
    for place in range(4):
        own = {"control_image": images[place // 2], "t2i_image": images[place // 2], "generator": seeded(place)}
        one = run(pipeline, "ab"[place // 2], **{**options, **own})
        torch.testing.assert_close(batch[place : place + 1], one, atol=1e-3, rtol=1e-3)


def test_a_list_is_as_a_multi_control_net_and_nested_lists_are_by_prompt(make):
    pipeline = make()
    options = {**controlled_twice(pipeline), "reference_image": {"color": references()["color"]}}
    listed = {**options, "controlnet": list(options["controlnet"].nets), "control_image": [[IMAGE, OTHER]]}
    assert torch.equal(run(pipeline, **listed), run(pipeline, **options))


def test_a_t2i_adapter_counts_for_a_part_of_the_run(make):
    pipeline, traces = make(), []
    for factor in (1.0, 0.5, 0.0):
        trace = []
        options = {**adapted(pipeline), "reference_image": {"color": references()["color"]}}
        run(
            pipeline,
            adapter_conditioning_factor=factor,
            callback_on_step_end=lambda p, i, t, k, trace=trace: (trace.append(k["latents"].clone()), {})[1],
            **options,
        )
        traces.append(trace)
    whole, half, none = traces
    assert torch.equal(half[0], whole[0]) and is_apart(half[0], none[0])
    assert (half[1] - whole[1]).abs().max() > 1e-4  # the last step, of little noise, changes little
    assert torch.equal(none[1], run(pipeline, reference_image={"color": references()["color"]}))


def test_feature_guidance_through_the_unet_goes_with_everything(make):
    pipeline = make()
    options = {"reference_image": references(), **everything(pipeline)}
    plain = run(pipeline, **options)
    assert is_apart(run(pipeline, **options, feature_guidance_scale=1.0, feature_guidance_full=True), plain)


# -- editing ----------------------------------------------------------------------------------------------------------
HOLE = np.zeros((SIZE, SIZE), np.uint8)
HOLE[4:12, 4:12] = 255


@pytest.mark.parametrize("is_inpainting", [False, True])
@pytest.mark.parametrize("prepare", [with_ip_adapter, adapted, controlled, two_loras], ids=lambda f: f.__name__)
def test_edits_go_with_other_adapters_and_stay_inside_the_mask(make_inpaint, prepare, is_inpainting):
    pipeline, given = make_inpaint(is_inpainting=is_inpainting), {"reference_image": references()}
    edit = {"image": picture(3, SIZE, SIZE), "mask_image": HOLE, "output_type": "pt", "guidance_scale": 2.0}
    steered = run(pipeline, **edit, **given)
    options = {**edit, **prepare(pipeline)}
    together, alone = run(pipeline, **options, **given), run(pipeline, **options, context_scale=0.0)
    inside = torch.from_numpy(HOLE) > 0
    original = torch.from_numpy(np.array(edit["image"])).permute(2, 0, 1).float() / 255
    assert torch.equal(together[0, :, ~inside], original[:, ~inside])
    assert is_apart(together[..., inside], steered[..., inside]) and is_apart(
        together[..., inside], alone[..., inside]
    )
    off = run(pipeline, **options, **given, granularity_scale=0.0, context_scale=0.0)
    assert torch.equal(off, alone)


@pytest.mark.parametrize("kind", ["pil", "numpy", "torch"])
def test_a_control_image_is_cropped_as_the_picture_is(make_inpaint, kind):
    """With a crop, only what of the control image lies over it counts, whatever the size of the image."""
    pipeline = make_inpaint(text=False)
    mask = np.zeros((2 * SIZE, 2 * SIZE), np.uint8)
    mask[2:10, 2:10] = 255
    crop = {"image": picture(3, 2 * SIZE, 2 * SIZE), "mask_image": mask, "padding_mask_crop": 2}
    whole = np.asarray(picture(8, 4 * SIZE, 4 * SIZE)).copy()
    outside, inside = whole.copy(), whole.copy()
    outside[3 * SIZE :] = 0
    inside[:SIZE] = 0

    def edited(pixels):
        as_kind = {
            "pil": lambda: PIL.Image.fromarray(pixels),
            "numpy": lambda: pixels[None].astype(np.float32) / 255,
            "torch": lambda: torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255,
        }[kind]()
        options = {**controlled(pipeline), "control_image": as_kind, "control_guidance_end": 1.0}
        return run(pipeline, None, **options, **crop)

    assert torch.equal(edited(whole), edited(outside)) and is_apart(edited(whole), edited(inside))


# -- nothing is left behind -------------------------------------------------------------------------------------------
def fingerprint(unet) -> list:
    """What every submodule holds: names of attributes, hooks, and which processor."""
    return [
        (
            name,
            sorted(vars(module)),
            {key: list(value) for key, value in vars(module).items() if "hooks" in key},
            id(getattr(module, "processor", None)),
            list(module._modules),
        )
        for name, module in unet.named_modules()
    ]


@pytest.mark.parametrize("ending", ["done", "error", "interrupted"])
@pytest.mark.parametrize("kind", [MGPipeline, MGInpaintPipeline], ids=lambda kind: kind.__name__)
def test_nothing_is_left_on_the_unet(make, monkeypatch, kind, ending):
    pipeline = make(kind=kind)
    options = {"reference_image": references(), **everything(pipeline)}
    if kind is MGInpaintPipeline:
        options |= {"image": picture(3, SIZE, SIZE), "mask_image": HOLE}
    before, seen = fingerprint(pipeline.unet), []

    def fail(pipe, step, timestep, tensors):
        seen.append(fingerprint(pipe.unet))
        if ending == "error":
            raise RuntimeError("from the callback")
        return {}

    def interrupt(*args, **kwargs):
        seen.append(fingerprint(pipeline.unet))
        raise KeyboardInterrupt

    if ending == "interrupted":
        monkeypatch.setattr(pipeline.scheduler, "step", interrupt)
    raised = {"error": RuntimeError, "interrupted": KeyboardInterrupt}
    if ending == "done":
        run(pipeline, callback_on_step_end=fail, **options)
    else:
        with pytest.raises(raised[ending]):
            run(pipeline, callback_on_step_end=fail, **options)
    assert seen and all(during != before for during in seen)  # the adapter was attached
    assert fingerprint(pipeline.unet) == before


# -- saving -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("is_meta", [True, False])
@pytest.mark.parametrize("width, named", [(2048, r"2048 \(Stable Diffusion XL\)"), (48, "48")])
def test_an_ip_adapter_of_another_base_is_refused_in_one_sentence(make, width, named, is_meta):
    pipeline = make()
    before = run(pipeline, reference_image=references())
    other = UNet2DConditionModel.from_config({**pipeline.unet.config, "cross_attention_dim": width})
    with pytest.raises(
        ValueError, match=f"cross_attention_dim {named}, and this one has cross_attention_dim 32: load"
    ) as refused:
        pipeline.load_ip_adapter(ip_adapter(other), None, None, image_encoder_folder=None, low_cpu_mem_usage=is_meta)
    assert "\n" not in str(refused.value) and pipeline.feature_extractor is None
    assert (run(pipeline, reference_image=references()) == before).all()


def without(part, beginning):
    def broken(weights):
        weights[part] = {key: one for key, one in weights[part].items() if not key.startswith(beginning)}
        return weights

    return broken


BROKEN = {
    "no projection": lambda weights: {**weights, "image_proj": {}},
    "half a projection": without("image_proj", "proj.bias"),
    "no attention": lambda weights: {**weights, "ip_adapter": {}},
    "half the attention": without("ip_adapter", "1."),
    "a LoRA that is half": lambda w: {
        **w,
        "ip_adapter": {**w["ip_adapter"], "0.to_k_lora.down.weight": torch.ones(4, 32)},
    },
}


@pytest.mark.parametrize("has_one", [False, True], ids=["none before", "one before"])
@pytest.mark.parametrize("is_meta", [True, False])
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_ip_adapter_leaves_everything_as_it_was(make, kind, is_meta, has_one):
    pipeline = make()
    options = {"reference_image": references(), **(with_ip_adapter(pipeline) if has_one else {})}
    before, processors = run(pipeline, **options), dict(pipeline.unet.attn_processors)
    broken = BROKEN[kind](ip_adapter(pipeline.unet, tokens=4))
    with pytest.raises(ValueError, match="cannot be loaded, and the pipeline stays as it was: its file is damaged"):
        pipeline.load_ip_adapter(broken, None, None, image_encoder_folder=None, low_cpu_mem_usage=is_meta)
    assert (pipeline.feature_extractor is not None) == (pipeline.image_encoder is not None) == has_one
    assert all(one is processors[name] for name, one in pipeline.unet.attn_processors.items())
    assert not any(parameter.is_meta for parameter in pipeline.unet.parameters())
    assert torch.equal(run(pipeline, **options), before)
    if not has_one:
        assert torch.isfinite(run(pipeline, reference_image=references(), **with_ip_adapter(pipeline))).all()


def with_lora(unet, seed: int, is_whole: bool = True) -> dict:
    """Weights of a small IP-Adapter that brings a LoRA, as those that know faces do; or one of which a layer does not fit."""
    weights, generator = ip_adapter(unet), torch.Generator().manual_seed(seed)
    for place, name in enumerate(unet.attn_processors):
        layer = unet.get_submodule(name.removesuffix(".processor"))
        for part, linear in {"k": layer.to_k, "q": layer.to_q, "v": layer.to_v, "out": layer.to_out[0]}.items():
            wide = linear.out_features + (place == 1 and not is_whole)
            down, up = ((2, linear.in_features), (wide, 2))
            for end, size in (("down", down), ("up", up)):
                key = f"{place}.to_{part}_lora.{end}.weight"
                weights["ip_adapter"][key] = 0.3 * torch.randn(size, generator=generator)
    return weights


def loras_of(pipeline) -> dict:
    """Each layer with LoRAs: which there are, which of them are active, and how strong."""
    models = {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}
    parts = {(name, place): part for name, model in models.items() for place, part in model.named_modules()}
    wrapped = {place: part for place, part in parts.items() if hasattr(part, "lora_A")}
    return {place: (set(part.lora_A), part.active_adapters, dict(part.scaling)) for place, part in wrapped.items()}


@pytest.mark.parametrize("is_second", [False, True], ids=["one", "the second of two"])
@pytest.mark.parametrize("active", [None, (["a", "b", "text"], [0.7, 0.4, 0.5]), (["b"], [0.4])], ids=str)
def test_an_ip_adapter_whose_lora_fits_in_part_leaves_loras_as_they_were(make, active, is_second):
    pytest.importorskip("peft")
    pipeline, options = make(), {"reference_image": references()}
    files = [with_lora(pipeline.unet, 1), with_lora(pipeline.unet, 2, is_whole=False)][0 if is_second else 1 :]
    if active is not None:
        load_loras(pipeline)
        layer = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
        sizes = {"A": (2, 32), "B": (32, 2)}
        state = {f"{layer}.lora_{part}.weight": 0.3 * torch.ones(size) for part, size in sizes.items()}
        pipeline.load_lora_weights(state, adapter_name="text")
        pipeline.set_adapters(*active)
    before, loras = run(pipeline, **options), loras_of(pipeline)
    keys, trained = set(pipeline.unet.state_dict()), [one.requires_grad for one in pipeline.unet.parameters()]
    with pytest.raises(ValueError, match="cannot be loaded, and the pipeline stays as it was"):
        names = [""] * len(files)
        pipeline.load_ip_adapter(files, names, names, image_encoder_folder=None)
    assert loras_of(pipeline) == loras and bool(loras) == (active is not None)
    assert set(getattr(pipeline.unet, "peft_config", ())) == ({"a", "b"} if active else set())
    assert set(pipeline.unet.state_dict()) == keys
    assert [one.requires_grad for one in pipeline.unet.parameters()] == trained
    assert torch.equal(run(pipeline, **options), before)


def test_a_file_that_is_no_ip_adapter_leaves_everything_as_it_was(make, tmp_path):
    pipeline = make()
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match="SafetensorError.*Download it anew"):
        pipeline.load_ip_adapter(str(tmp_path), "", "torn.safetensors", image_encoder_folder=None)
    with pytest.raises(OSError):
        pipeline.load_ip_adapter(str(tmp_path), "", "nosuch.safetensors", image_encoder_folder=None)
    assert pipeline.feature_extractor is None and torch.isfinite(run(pipeline)).all()


def test_an_image_for_an_ip_adapter_that_pillow_reads_wrong_is_refused(make, tmp_path):
    cv2 = pytest.importorskip("cv2")
    deep = np.full((96, 96, 3), 65535, np.uint16)
    cv2.imwrite(str(tmp_path / "white.jp2"), deep)
    pipeline = make()
    with_ip_adapter(pipeline)
    with pytest.raises(ValueError, match="colors of 16 bits, of which Pillow reads 8. Read it with another library"):
        run(pipeline, ip_adapter_image=PIL.Image.open(tmp_path / "white.jp2"))


def test_an_ip_adapter_is_not_saved_but_its_image_encoder_is(make, tmp_path):
    pipeline = make()
    pipeline.save_pretrained(tmp_path / "bare")
    index = json.loads((tmp_path / "bare" / "model_index.json").read_text())
    assert index["image_encoder"] == index["feature_extractor"] == [None, None]
    assert MGPipeline.from_pretrained(tmp_path / "bare").image_encoder is None
    options = {"reference_image": references(), **with_ip_adapter(pipeline)}
    expected = run(pipeline, **options)
    pipeline.save_pretrained(tmp_path / "with")
    again = MGPipeline.from_pretrained(tmp_path / "with")
    with pytest.raises(ValueError, match="There is no IP-Adapter"):
        run(again, **options)
    again.load_ip_adapter(ip_adapter(again.unet), None, None, image_encoder_folder=None)
    torch.testing.assert_close(run(again, **options), expected, atol=1e-3, rtol=1e-3)


# -- schedulers -------------------------------------------------------------------------------------------------------
SCHEDULERS = sorted(
    {kind.__name__ for kind in DDIMScheduler().compatibles} | {"LCMScheduler", "TCDScheduler", "SASolverScheduler"}
)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_runs_with_references(make, name):
    pipeline = make(text=False)
    kind = getattr(diffusers, name)
    try:
        pipeline.scheduler = kind.from_config(pipeline.scheduler.config)
    except ImportError as error:  # needs a library that is not installed
        pytest.skip(str(error))
    plain, steered = (
        run(pipeline, None, num_inference_steps=4, reference_image=given) for given in (None, references())
    )
    assert torch.isfinite(plain).all() and is_apart(steered, plain)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda one: one[..., :3],
            r"of the shape \(2, images, 16\) from `prepare_ip_adapter_image_embeds`, got \(2, 1, 3\)",
        ),
        (lambda one: one * torch.nan, "finite numbers"),
        (lambda one: one.detach().numpy(), "got ndarray. Pass `torch.from_numpy"),
    ],
    ids=["width", "NaN", "numpy"],
)
def test_embeds_that_an_ip_adapter_cannot_read_are_refused(make, change, said):
    pipeline = make()
    (embeds,) = ip_embeds(pipeline)["ip_adapter_image_embeds"]
    with pytest.raises(ValueError, match=f"`ip_adapter_image_embeds.0.` .*{said}"):
        run(pipeline, ip_adapter_image_embeds=[change(embeds)])
    with pytest.raises(ValueError, match="is a list with a tensor for each IP-Adapter"):
        run(pipeline, ip_adapter_image_embeds=embeds)
