"""What works beside references works beside a composed start without an adapter: every row of docs/compatibility.md that does."""

import pytest
import torch

from .test_compatibility import WORKS, is_apart, run
from .tiny import references


@pytest.mark.parametrize("name", WORKS)
def test_what_works_goes_with_a_composed_start(make, name):
    item = WORKS[name]
    pipeline, untouched = make(), make()
    pipeline.mg_adapter = untouched.mg_adapter = None
    given = {"reference_image": references(), "composed_start": 0.5, "feature_guidance_scale": 0}
    given |= {"num_inference_steps": 4, **(item.options or {})}
    pipeline.untouched = untouched
    steered = run(untouched, **given)
    options = item.prepare(pipeline)
    options = {**given, **(options if isinstance(options, dict) else {})}
    together = run(pipeline, **options)
    bare = run(pipeline, **{**options, "reference_image": None, "composed_start": 0})
    assert torch.isfinite(together).all() and is_apart(together, bare)
    if item.is_on is None:
        assert not torch.equal(together, steered)
    else:
        torch.testing.assert_close(together, steered, atol=1e-3, rtol=1e-3)
