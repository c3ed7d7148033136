"""Strength by block of the UNet: `granularity_scale` in the form of `set_ip_adapter_scale`."""

import numpy as np
import pytest
import torch

from mg_diffusion import MGAdapter, MGEncoder
from mg_diffusion.adapter.blocks import parse_blocks

from .tiny import references, seeded, tiny_components


NAMES = ("color", "texture", "shape")
# As of Stable Diffusion 1.5, one layer of each transformer.
LAYERS = [
    {"name": f"{kind}.{block}.attentions.{place}.transformer_blocks.0.attn2"}
    for kind, blocks, count in (("down_blocks", (0, 1, 2), 2), ("up_blocks", (1, 2, 3), 3))
    for block in blocks
    for place in range(count)
] + [{"name": "mid_block.attentions.0.transformer_blocks.0.attn2"}]


def layer(kind: str, place: int) -> str:
    return f"{kind}.attentions.{place}.transformer_blocks.0.attn2"


def generate(pipeline, **options):
    given = {"num_inference_steps": 3, "output_type": "np", "generator": seeded(), "reference_image": references()}
    return pipeline("a", **{**given, **options}).images


def test_what_is_not_named_is_zero_as_in_set_ip_adapter_scale():
    given = {"texture": {"down": {"block_2": [0.0, 1.0]}, "up": {"block_1": [0.0, 0.5, 0.0], "block_3": 2}}}
    found = parse_blocks(given, NAMES, LAYERS, 4)
    texture = {name: float(factors[1]) for name, factors in found.layers.items() if factors[1] > 0}
    assert texture == {
        layer("down_blocks.2", 1): 1.0,
        layer("up_blocks.1", 1): 0.5,
        **{layer("up_blocks.3", place): 2.0 for place in range(3)},
    }
    assert all((factors[[0, 2]] == 1).all() for factors in found.layers.values())
    assert found.down_blocks[:, 1].tolist() == [0, 0, 0.5, 0]  # the mean of its list


def test_a_part_is_all_of_its_blocks():
    found = parse_blocks({"color": {"down": 0.5, "mid": 1}}, NAMES, LAYERS, 4)
    by_part = {name.split("_")[0]: float(factors[0]) for name, factors in found.layers.items()}
    assert by_part == {"down": 0.5, "mid": 1, "up": 0} and found.down_blocks[:, 0].tolist() == [0.5] * 4


def test_numbers_have_no_blocks():
    assert parse_blocks({"color": 0.5}, NAMES, LAYERS, 4) is None and parse_blocks(1.0, NAMES, LAYERS, 4) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"middle": 1}, r"names parts of the UNet, some of \('down', 'mid', 'up'\); got 'middle'"),
        ({"up": {"block_0": 1}}, r"\['up'\] names some of \['block_1', 'block_2', 'block_3'\]; got 'block_0'"),
        ({"down": {"block_1": [1, 1, 1]}}, "must be 2 numbers, one for each of its transformers"),
        ({"down": {"block_3": [1]}}, "must be a single number"),
        ({"up": {"block_1": -1}}, "finite and at least 0"),
        ({"up": float("nan")}, "finite and at least 0"),
        ({"up": True}, "finite and at least 0"),
        ({"up": "much"}, "finite and at least 0"),
        ({"mid": {"block_0": 1}}, "is a number: there is one block in the middle"),
        ({"mid": [1, 2]}, "must be 1 numbers"),
    ],
)
def test_what_the_unet_does_not_have_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        parse_blocks({"shape": given}, NAMES, LAYERS, 4)


def test_all_blocks_at_one_are_all_of_it_and_all_at_zero_nothing(make):
    pipeline = make()
    whole = {"down": 1.0, "mid": 1.0, "up": 1.0}
    np.testing.assert_array_equal(
        generate(pipeline), generate(pipeline, granularity_scale=dict.fromkeys(NAMES, whole))
    )
    alone = {"reference_image": {"texture": references()["texture"]}}
    off = generate(pipeline, **alone, granularity_scale={"texture": {"down": 0.0}})
    np.testing.assert_array_equal(off, generate(pipeline, reference_image=None))
    made = [generate(pipeline, granularity_scale={"shape": {part: 1.0}}) for part in ("down", "mid", "up")]
    assert len({one.tobytes() for one in made}) == 3


def test_along_with_regions_schedules_and_strengths(make):
    pipeline = make()
    blocks = {"color": {"up": 1.0}, "shape": 0.5}
    regional = {**references(), "color": {"image": ["#c1121f"], "region": (0, 0, 0.5, 1)}}
    options = {"num_inference_steps": 3, "output_type": "np", "generator": seeded()}
    made = pipeline("a", reference_image=regional, granularity_scale=blocks, **options).images
    options["generator"] = seeded()
    schedule = {"color": [1.0, 0.0]}
    later = pipeline(
        "a", reference_image=regional, granularity_scale=blocks, granularity_schedule=schedule, **options
    ).images
    assert np.isfinite(made).all() and not np.array_equal(made, later)


def test_it_is_checked_before_anything_is_computed(make):
    pipeline, runs = make(), []
    pipeline.unet.register_forward_hook(lambda *_: runs.append(1))
    with pytest.raises(ValueError, match="names some of"):
        generate(pipeline, granularity_scale={"color": {"up": {"block_9": 1.0}}})
    assert not runs


def test_the_layers_of_released_configurations_are_known():
    from benchmarks.bases import build_unet

    for name in ("sd15", "sdxl"):
        unet = build_unet(name, device="meta")
        adapter = MGAdapter.from_unet(unet, MGEncoder.from_unet(unet))
        blocks = {"down": {"block_1": [0.0, 1.0]}, "up": {"block_1": [0.0, 1.0, 0.0]}}
        found = adapter.block_scales({"texture": blocks})
        assert sum(bool(factors[1]) for factors in found.layers.values()) == {"sd15": 2, "sdxl": 4}[name]


def test_blocks_in_the_modular_pipeline(tmp_path):
    from mg_diffusion.pipelines.modular_mg import MGBlocks

    parts = tiny_components(tmp_path)
    modular = MGBlocks().init_pipeline()
    modular.update_components(**parts)
    modular.set_progress_bar_config(disable=True)
    options = {"reference_image": references(), "num_inference_steps": 2, "output_type": "latent"}
    made = [
        modular(output="images", generator=seeded(), granularity_scale=scale, **options)
        for scale in (1.0, {"color": {"up": 1.0}})
    ]
    assert not torch.equal(*made)
    with pytest.raises(ValueError, match="names parts of the UNet"):
        modular(output="images", granularity_scale={"color": {"sideways": 1.0}}, **options)


@pytest.mark.parametrize("blocks", [{"down": 0.0, "mid": 0, "up": {"block_1": [0.0, 0.0]}}, {"up": 0.0}, {}], ids=str)
@pytest.mark.parametrize("options", [{}, {"composed_start": 0.5}, {"guidance_scale": 1.0}], ids=str)
def test_all_blocks_at_zero_are_strength_zero_bit_for_bit(make, options, blocks):
    """Of one granularity among several, too, which is then neither fused with the others nor laid out with them."""
    pipeline = make()
    for names in (NAMES, ("color",)):
        off, zero = ({name: one for name in names} for one in (blocks, 0))
        np.testing.assert_array_equal(
            generate(pipeline, granularity_scale=off, **options), generate(pipeline, granularity_scale=zero, **options)
        )
