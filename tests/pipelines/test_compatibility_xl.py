"""IP-Adapters, ControlNets and T2I-Adapters along with references in the pipelines of SDXL."""

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import (
    ControlNetModel,
    StableDiffusionXLAdapterPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLPipeline,
    T2IAdapter,
)

from mg_diffusion.export import export
from mg_diffusion.export_modular import export_modular
from mg_diffusion.pipelines import MGInpaintPipeline, MGPipeline, MGXLInpaintPipeline, MGXLPipeline

from .test_compatibility import IMAGE, renamed, run, with_ip_adapter
from .tiny import SIZE, picture, references
from .tiny_xl import tiny_components_xl, tiny_unet_xl


@pytest.fixture
def pipeline(tmp_path):
    made = MGXLPipeline(**tiny_components_xl(tmp_path))
    made.set_progress_bar_config(disable=True)
    return made


def control_net() -> ControlNetModel:
    torch.manual_seed(0)
    net = ControlNetModel.from_unet(tiny_unet_xl(), conditioning_embedding_out_channels=(8, 8)).eval()
    for parameter in net.parameters():
        if not parameter.abs().sum():  # what starts at zero
            torch.nn.init.normal_(parameter, std=0.1)
    return net


def controlled(pipeline) -> dict:
    options = {"controlnet_conditioning_scale": 0.6, "control_guidance_end": 0.5}
    return {"controlnet": control_net(), "control_image": IMAGE, **options}


def adapted(pipeline) -> dict:
    torch.manual_seed(0)
    adapter = T2IAdapter(3, [16, 32, 32, 32], num_res_blocks=1, downscale_factor=4, adapter_type="full_adapter_xl")
    return {"t2i_adapter": adapter.eval(), "t2i_image": IMAGE, "adapter_conditioning_scale": 0.7}


def stock(pipeline, kind=StableDiffusionXLPipeline, **more):
    parts = {name: part for name, part in pipeline.components.items() if not name.startswith("mg_")}
    made = kind(**parts, **more)
    made.set_progress_bar_config(disable=True)
    return made


def of_stock(pipeline, options) -> torch.Tensor:
    """What diffusers' own pipeline makes of the same."""
    own = renamed(options, controlnet="", control_image="image", t2i_adapter="", t2i_image="image")
    if "controlnet" in options:
        kind, more = StableDiffusionXLControlNetPipeline, {"controlnet": options["controlnet"]}
    elif "t2i_adapter" in options:
        kind, more = StableDiffusionXLAdapterPipeline, {"adapter": options["t2i_adapter"]}
    else:
        kind, more = StableDiffusionXLPipeline, {}
    return run(stock(pipeline, kind, **more), **own)


@pytest.mark.parametrize("prepare", [with_ip_adapter, controlled, adapted], ids=lambda one: one.__name__)
def test_it_has_its_effect_beside_references_and_is_the_stock_one_without(pipeline, prepare):
    steered = run(pipeline, reference_image=references())
    options = prepare(pipeline)
    together, alone = (run(pipeline, reference_image=given, **options) for given in (references(), None))
    assert torch.isfinite(together).all()
    assert all((together - other).abs().max() > 1e-3 for other in (steered, alone))
    assert torch.equal(run(pipeline, reference_image=references(), granularity_scale=0.0, **options), alone)
    assert torch.equal(of_stock(pipeline, options), alone)


def test_edits_with_all_of_them_keep_what_is_outside(pipeline):
    editing = MGXLInpaintPipeline(**pipeline.components)
    editing.set_progress_bar_config(disable=True)
    options = {**controlled(editing), **adapted(editing), **with_ip_adapter(editing)}
    image, inside = picture(3, SIZE, SIZE), np.zeros((SIZE, SIZE), bool)
    inside[4:12, 4:12] = True
    mask = PIL.Image.fromarray(inside)
    given = {"image": image, "mask_image": mask, "reference_image": references(), "output_type": "np"}
    processors = editing.unet.attn_processors
    made = run(editing, **given, **options)[0]
    assert np.array_equal(made[~inside], (np.asarray(image, np.float32) / 255)[~inside])
    assert all(a is b for a, b in zip(processors.values(), editing.unet.attn_processors.values(), strict=True))


def test_what_does_not_fit_is_refused(pipeline):
    with pytest.raises(ValueError, match="`controlnet` and `control_image` go together"):
        run(pipeline, controlnet=control_net())
    with pytest.raises(ValueError, match="There is no IP-Adapter"):
        run(pipeline, ip_adapter_image=IMAGE)


def test_the_pipelines_of_stable_diffusion_refuse_its_unet():
    parts = tiny_components_xl()
    parts = {name: part for name, part in parts.items() if not name.endswith("_2")}
    for kind in (MGPipeline, MGInpaintPipeline):
        with pytest.raises(ValueError, match="addition_embed_type 'text_time'. For SDXL there are `MGXLPipeline`"):
            kind(**parts)


def test_a_base_of_sdxl_is_exported_as_what_it_is(pipeline, tmp_path):
    parts = {name: part for name, part in pipeline.components.items() if not name.startswith("mg_")}
    StableDiffusionXLPipeline(**parts).save_pretrained(tmp_path / "base")
    for name in ("mg_encoder", "mg_adapter"):
        getattr(pipeline, name).save_pretrained(tmp_path / "trained" / name)
    export(tmp_path / "trained", tmp_path / "made", torch.float32, base=tmp_path / "base")
    made = MGXLPipeline.from_pretrained(tmp_path / "made")
    assert made.text_encoder_2 is not None and made.mg_adapter is not None
    export(tmp_path / "made", tmp_path / "again", torch.float32)
    assert (tmp_path / "again" / "pipeline_mg_xl.py").is_file()
    with pytest.raises(ValueError, match="made' is of SDXL; the modular blocks"):
        export_modular(tmp_path / "made", tmp_path / "modular")
