"""What works beside references works below octaves, too: every row of docs/compatibility.md that does, with a detail network."""

import pytest
import torch

from mg_diffusion.octaves import build_detail_unet

from .test_compatibility import WORKS, is_apart, run
from .tiny import SIZE, references


LARGE = 4 * SIZE


@pytest.fixture
def mg_detail():
    """One for each test: some items change all networks of a pipeline."""
    torch.manual_seed(0)
    unet = build_detail_unet((16, 32), sample_size=LARGE // 2).eval()
    torch.nn.init.normal_(unet.conv_out.weight, std=0.05)
    return unet


@pytest.mark.parametrize("name", WORKS)
def test_what_works_below_octaves(make, mg_detail, name):
    """What has an effect has one in the larger picture, what has none leaves it as it is; the strength 0 is 0."""
    item, given = WORKS[name], {"reference_image": {"texture": references()["texture"]}}
    size = {"output_type": "pt", "num_detail_steps": 2, "height": LARGE, "width": LARGE, "num_images_per_prompt": 1}
    always = {**(item.options or {}), **size}
    pipeline, untouched = make(), make()
    for one in (pipeline, untouched):
        one.register_modules(mg_detail=mg_detail)
    options = item.prepare(pipeline)
    options = {**always, **(options if isinstance(options, dict) else {}), **size}
    together, alone = (run(pipeline, **more, **options) for more in (given, {}))
    assert together.shape[2:] == (LARGE, LARGE) and is_apart(together, alone)
    if item.is_on is None and name != "VAE slicing and tiling":  # what the UNet paints here is no larger than a tile
        # Eight bits a weight move latents, not pictures, by more than `is_apart` asks for, so that any trace counts.
        assert not torch.equal(together, run(untouched, **given, **always))
    else:
        torch.testing.assert_close(together, run(untouched, **given, **always), atol=1e-3, rtol=1e-3)
    assert torch.equal(run(pipeline, **given, granularity_scale=0.0, **options), alone)
