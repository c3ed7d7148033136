"""MGAdapter on real UNets: nothing given is exactly the base, what is attached is detached, folding changes nothing."""

import copy
import itertools
import shutil

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import nn

from mg_diffusion import MGAdapter, MGEncoder
from mg_diffusion.adapter.attention import effective_weight
from mg_diffusion.adapter.layers import down_block_sizes
from mg_diffusion.adapter.quilting import lay_tiles
from mg_diffusion.adapter.sketch import lay_palette, random_turns, turn_colors
from mg_diffusion.adapter.strengths import parse_strengths
from mg_diffusion.adapter.variation import apply_variation, draw_variation
from mg_diffusion.encoder.views import rgb_to_lab


NAMES = ("color", "texture", "shape")
BACKBONE = {
    "model_type": "convnextv2",
    "num_channels": 1,
    "patch_size": 2,
    "hidden_sizes": [8, 12],
    "num_stages": 2,
    "depths": [1, 1],
    "out_features": ["stage1", "stage2"],
}
CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
UNETS = {
    "SD1.5-like": {"down_block_types": (CROSS, CROSS, PLAIN), "attention_head_dim": 4},
    "SD2-like": {"down_block_types": (CROSS, PLAIN), "attention_head_dim": (2, 4), "use_linear_projection": True},
    "SDXL-like": {
        "down_block_types": (PLAIN, CROSS),
        "attention_head_dim": (2, 4),
        "use_linear_projection": True,
        "transformer_layers_per_block": (1, 2),
    },
    "inpainting": {"down_block_types": (CROSS, PLAIN), "attention_head_dim": 8, "in_channels": 25, "out_channels": 12},
    "attention everywhere": {"down_block_types": (CROSS, CROSS, CROSS), "attention_head_dim": 4},
}
SIZE = (8, 8)


def make_unet(name="SD1.5-like", **config):
    torch.manual_seed(1)
    config = {**UNETS[name], **config}
    down = config["down_block_types"]
    up = tuple(kind.replace("Down", "Up") for kind in reversed(down))
    defaults = {"layers_per_block": 1, "norm_num_groups": 4, "cross_attention_dim": 12, "sample_size": 8}
    widths = (16, 24, 32)[: len(down)]
    return UNet2DConditionModel(**{**defaults, "block_out_channels": widths, "up_block_types": up, **config}).eval()


def make_encoder():
    torch.manual_seed(2)
    return MGEncoder(color_channels=8, texture_channels=8, num_tiles=6, shape_backbone=BACKBONE).eval()


def make_adapter(unet, encoder, random=False, **config):
    torch.manual_seed(3)
    adapter = MGAdapter.from_unet(unet, encoder, **{"num_tokens": 3, "token_dim": 16, **config}).eval()
    if random:
        for parameter in adapter.parameters():
            if parameter.ndim == 0 or not parameter.abs().sum():  # what starts at zero
                nn.init.normal_(parameter, std=0.3)
        adapter.fusion.alpha.data.fill_(0.7)
    return adapter


@pytest.fixture(scope="module")
def encoder():
    return make_encoder()


@pytest.fixture(scope="module", params=list(UNETS))
def any_unet(request):
    return make_unet(request.param)


@pytest.fixture(scope="module")
def unet():
    return make_unet()


@pytest.fixture(scope="module")
def adapter(unet, encoder):
    return make_adapter(unet, encoder, random=True)


def encode(encoder, adapter, names=NAMES, batch=1, size=SIZE):
    pictures = torch.Generator().manual_seed(4)
    references = {name: [[torch.rand(3, 48, 48, generator=pictures)] for _ in range(batch)] for name in NAMES}
    return encoder.encode({name: references[name] for name in names}, adapter.map_size(*size), batch)


def one_of_each(features):
    return {name: parts for name, (parts,) in features.items()}


def inputs(unet, batch=1, size=SIZE):
    generator = torch.Generator().manual_seed(5)
    sample = torch.randn(batch, unet.config.in_channels, *size, generator=generator)
    text = torch.randn(batch, 5, unet.config.cross_attention_dim, generator=generator)
    return sample, 500, text


@torch.no_grad()
def run(unet, batch=1, attention=None, residuals=None, size=SIZE):
    extra = {} if attention is None else {"cross_attention_kwargs": {"ip_hidden_states": attention}}
    if residuals is not None:
        extra["down_intrablock_additional_residuals"] = list(residuals)
    return unet(*inputs(unet, batch, size), **extra).sample


@torch.no_grad()
def steer(unet, adapter, features, strengths, size=SIZE, **kwargs):
    attention, residuals = adapter.condition(unet, features, strengths, size, **kwargs)
    with adapter.attach(unet):
        return run(unet, len(strengths), attention, residuals, size)


# -- nothing given is exactly the base ---------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [(8, 8), (12, 8)])
def test_an_untrained_adapter_reproduces_the_base_bit_for_bit(any_unet, encoder, size):
    adapter = make_adapter(any_unet, encoder)
    features = encode(encoder, adapter, batch=2, size=size)
    assert torch.equal(steer(any_unet, adapter, features, torch.ones(2, 3), size), run(any_unet, 2, size=size))


@pytest.mark.parametrize("names", [("x",), ("color", "x"), ()])
def test_granularities_that_are_none_are_refused_at_construction(unet, encoder, names):
    with pytest.raises(ValueError, match="granularities must be some of .*, each with its length in vector_sizes"):
        MGAdapter.from_unet(unet, encoder, granularities=names)


def test_strength_zero_is_exactly_the_base_row_by_row(any_unet, encoder):
    adapter = make_adapter(any_unet, encoder, random=True)
    features = encode(encoder, adapter, batch=3)
    base = run(any_unet, 3)
    assert torch.equal(steer(any_unet, adapter, features, torch.zeros(3, 3)), base)
    strengths = torch.tensor([[1.0] * 3, [0.0] * 3, [1.0] * 3])
    steered = steer(any_unet, adapter, features, strengths)
    assert torch.equal(steered[1], base[1])
    assert (steered[[0, 2]] - base[[0, 2]]).abs().amax((1, 2, 3)).min() > 1e-3


def test_nothing_given_is_exactly_the_base_at_any_strength(unet, adapter):
    _, residuals = adapter.condition(unet, {}, torch.ones(1, 3), SIZE)
    assert residuals is None
    assert torch.equal(steer(unet, adapter, {}, torch.ones(1, 3)), run(unet))


@pytest.mark.parametrize("names", [("color",), ("texture",), ("shape",), ("color", "shape")])
def test_every_subset_works_and_strength_zero_is_absent(unet, encoder, adapter, names):
    everything = encode(encoder, adapter)
    some = {name: everything[name] for name in names}
    strengths = torch.tensor([[float(name in names) for name in NAMES]])
    with_zeros, without = (steer(unet, adapter, f, strengths) for f in (everything, some))
    torch.testing.assert_close(with_zeros, without, rtol=0, atol=1e-6)
    # A strength that nothing is given for has nothing to multiply, with fusion as well.
    torch.testing.assert_close(steer(unet, adapter, some, torch.ones(1, 3)), without, rtol=0, atol=1e-6)
    assert (without - run(unet)).abs().max() > 1e-3


def test_every_sample_has_its_own_references_and_strengths(unet, encoder, adapter):
    features = encode(encoder, adapter, batch=3)
    strengths = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.5, 0.0], [0.3, 1.0, 1.0]])
    together = steer(unet, adapter, features, strengths)
    for row in range(3):
        own = {name: [{key: value[row : row + 1] for key, value in f.items()}] for name, (f,) in features.items()}
        attention, residuals = adapter.condition(unet, own, strengths[row : row + 1], SIZE)
        sample, step, text = (x[row : row + 1] if torch.is_tensor(x) else x for x in inputs(unet, 3))
        extra = {"cross_attention_kwargs": {"ip_hidden_states": attention}}
        with torch.no_grad(), adapter.attach(unet):
            alone = unet(sample, step, text, down_intrablock_additional_residuals=list(residuals), **extra).sample
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-5)


def test_shared_references_equal_repeated_ones(unet, encoder, adapter):
    shared = encode(encoder, adapter)
    repeated = {name: [{key: torch.cat([value] * 2) for key, value in f.items()}] for name, (f,) in shared.items()}
    strengths = torch.tensor([[1.0, 1.0, 1.0], [0.5, 0.0, 2.0]])
    one, other = (steer(unet, adapter, features, strengths) for features in (shared, repeated))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


# -- attaching ---------------------------------------------------------------------------------------------------------
def test_attached_without_conditioning_is_the_base(unet, adapter):
    base = run(unet)
    with adapter.attach(unet):
        assert torch.equal(run(unet), base)


@pytest.mark.parametrize("failing", [False, True])
def test_detaching_restores_the_very_same_processors(unet, adapter, failing):
    before = dict(unet.attn_processors)
    state = {key: value.clone() for key, value in unet.state_dict().items()}
    try:
        with adapter.attach(unet):
            changed = [name for name, processor in unet.attn_processors.items() if processor is not before[name]]
            assert len(changed) == len(adapter.config.attention_layers)
            assert all("attn2" in name for name in changed)
            if failing:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    after = unet.attn_processors
    assert after.keys() == before.keys() and all(after[name] is before[name] for name in before)
    assert unet.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in unet.state_dict().items())


def test_a_refused_unet_is_left_as_it_was(encoder, adapter):
    other = make_unet("SD2-like")
    before = dict(other.attn_processors)
    with pytest.raises(ValueError, match="does not fit the UNet"), adapter.attach(other):
        pass
    assert all(other.attn_processors[name] is before[name] for name in before)


def test_residuals_are_emptied_by_the_unet_and_reused_through_a_fresh_list(unet, encoder, adapter):
    attention, residuals = adapter.condition(unet, encode(encoder, adapter), torch.ones(1, 3), SIZE)
    kept = [residual.clone() for residual in residuals]
    extra = {"cross_attention_kwargs": {"ip_hidden_states": attention}}
    with torch.no_grad(), adapter.attach(unet):
        fresh = list(residuals)
        first = unet(*inputs(unet), down_intrablock_additional_residuals=fresh, **extra).sample
        assert fresh == [] and len(residuals) == len(unet.config.block_out_channels)
        again = run(unet, 1, attention, residuals)
    assert torch.equal(first, again)
    assert all(torch.equal(a, b) for a, b in zip(residuals, kept, strict=True))


# -- folded attention --------------------------------------------------------------------------------------------------
def decoupled_attention(adapter, attn, hidden, tokens, strengths, to_k, to_v):
    """What folding replaces: one softmax per granularity with its own keys and values, summed, through `to_out`."""
    heads = attn.heads

    def split(x):
        return x.unflatten(2, (heads, -1)).transpose(1, 2)

    query, total = split(attn.to_q(hidden)), 0
    for index, name in enumerate(adapter.config.granularities):
        key, value = split(to_k[name](tokens[:, index])), split(to_v[name](tokens[:, index]))
        weights = (query @ key.transpose(2, 3) * attn.scale).softmax(-1)
        total = total + (weights @ value) * strengths[:, index].view(-1, 1, 1, 1)
    total = total.transpose(1, 2).flatten(2)
    return nn.functional.linear(total, attn.to_out[0].weight)  # the bias belongs to the text's own attention


@torch.no_grad()
def test_folded_attention_equals_explicit_decoupled_attention(any_unet, encoder):
    adapter = make_adapter(any_unet, encoder, random=True)
    strengths = torch.tensor([[1.0, 0.5, 2.0], [0.0, 1.0, 0.3]])
    tokens, _ = adapter(encode(encoder, adapter, batch=2), strengths, SIZE)
    folded, modules = adapter.fold(any_unet, tokens, strengths), dict(any_unet.named_modules())
    text = torch.randn(2, 5, 12)
    with adapter.attach(any_unet):
        for layer, to_k, to_v in zip(adapter.config.attention_layers, adapter.to_k, adapter.to_v, strict=True):
            attn = modules[layer["name"]]
            hidden = torch.randn(2, 10, layer["query_dim"])
            found = attn(hidden, encoder_hidden_states=text, ip_hidden_states=folded)
            alone = attn(hidden, encoder_hidden_states=text)
            expected = decoupled_attention(adapter, attn, hidden, tokens, strengths, to_k, to_v)
            torch.testing.assert_close(found - alone, expected, rtol=1e-5, atol=1e-5)
            assert expected.abs().max() > 1e-3


@torch.no_grad()
def test_folded_values_and_residuals_are_linear_in_strength(unet, encoder, adapter):
    features = encode(encoder, adapter)
    one, double = (adapter.condition(unet, features, torch.full((1, 3), s), SIZE) for s in (1.0, 2.0))
    for layer in one[0]:
        torch.testing.assert_close(double[0][layer][0], one[0][layer][0])
        torch.testing.assert_close(double[0][layer][1], 2 * one[0][layer][1])
    for single, twice in zip(one[1], double[1], strict=True):
        torch.testing.assert_close(twice, 2 * single)


# -- strengths that change over the steps ------------------------------------------------------------------------------
@torch.no_grad()
def test_a_step_with_factors_is_one_with_the_product_as_strength(unet, encoder, adapter):
    features, factors = encode(encoder, adapter, batch=2), torch.tensor([0.5, 0.25, 2.0])
    strengths = torch.tensor([[1.0, 0.7, 0.3], [0.2, 1.0, 1.0]])
    every = torch.stack([factors, torch.ones(3)])
    conditioning = adapter.assemble_conditioning(unet, features, strengths, SIZE, factors=every, is_settled=True)
    found, expected = conditioning.at_step(0), adapter.condition(unet, features, strengths * factors, SIZE)
    with adapter.attach(unet):
        torch.testing.assert_close(run(unet, 2, *found), run(unet, 2, *expected), atol=1e-5, rtol=1e-4)
        same = run(unet, 2, *conditioning.at_step(1))
        assert torch.equal(same, run(unet, 2, *adapter.condition(unet, features, strengths, SIZE)))


@torch.no_grad()
def test_factors_of_zero_are_the_base(unet, encoder, adapter):
    off, on = torch.zeros(1, 3), torch.ones(1, 3)
    features = encode(encoder, adapter)
    conditioning = adapter.assemble_conditioning(unet, features, on, SIZE, factors=off, is_settled=True)
    with adapter.attach(unet):
        steered = run(unet, 1, *conditioning.at_step(0))
    torch.testing.assert_close(steered, run(unet), atol=1e-6, rtol=0)
    color = encode(encoder, adapter, ["color"])
    folded, residuals = adapter.assemble_conditioning(unet, color, on, SIZE, factors=on, is_settled=True).at_step(0)
    assert residuals is None and folded


@pytest.mark.parametrize(
    "curve, expected",
    [
        ((0.0, 0.5), [1, 1, 0, 0]),
        ((0.25, 1.0), [0, 1, 1, 1]),
        ((0.1, 0.7), [0, 1, 0, 0]),
        ([1, 0], [1, 2 / 3, 1 / 3, 0]),
        ([0.5], [0.5] * 4),
        ([0, 1.5, 0, 1], [0, 1.5, 0, 1]),
        (lambda fraction: 2 * fraction, [0, 2 / 3, 4 / 3, 2]),
    ],
)
def test_schedules_are_windows_curves_and_functions(adapter, curve, expected):
    factors = adapter.schedule({"texture": curve}, 4)
    torch.testing.assert_close(factors[:, 1], torch.tensor(expected, dtype=torch.float32))
    assert torch.equal(factors[:, [0, 2]], torch.ones(4, 2))
    if not isinstance(curve, tuple):
        assert adapter.schedule({"texture": curve}, 1).shape == (1, 3)


@pytest.mark.parametrize(
    "schedule, message",
    [
        ({"hue": (0, 1)}, "some of the keys"),
        ((0, 1), "got tuple"),
        ({"color": (0.5, 0.5)}, "0 <= start < end <= 1.*a window from 0.5 to 0.5"),
        ({"color": (0, 2)}, "a window from 0 to 2"),
        ({"color": (0, 0.5, 1)}, "must be a window"),
        ({"color": []}, "must be a window"),
        ({"color": 0.5}, "must be a window"),
        ({"color": ["much"]}, "must be a window"),
        ({"color": lambda fraction: None}, "must be a window"),
        ({"color": (0, 0.1)}, r"no step of 4 lies as a whole in the window \(0, 0.1\)"),
        ({"color": [1, -1]}, "finite and at least 0 in every step"),
        ({"color": lambda fraction: float("nan")}, "finite and at least 0"),
    ],
)
def test_schedules_that_are_none_are_refused(adapter, schedule, message):
    with pytest.raises(ValueError, match=message):
        adapter.schedule(schedule, 4)


# -- fusion ------------------------------------------------------------------------------------------------------------
@torch.no_grad()
def test_alpha_zero_is_fusion_scale_zero_and_alpha_mixes(unet, encoder):
    adapter = make_adapter(unet, encoder, random=True)
    features, strengths = encode(encoder, adapter), torch.ones(1, 3)
    without, mixed = (adapter(features, strengths, SIZE, fusion_scale=scale)[0] for scale in (0.0, 1.0))
    half = adapter(features, strengths, SIZE, fusion_scale=0.5)[0]
    assert (mixed - without).abs().max() > 1e-2
    torch.testing.assert_close(half, (without + mixed) / 2)
    adapter.fusion.alpha.data.zero_()
    for scale in (0.0, 1.0):
        assert torch.equal(adapter(features, strengths, SIZE, fusion_scale=scale)[0], without)


def test_fusion_lets_a_present_granularity_change_another(unet, encoder, adapter):
    features = encode(encoder, adapter)
    (color,) = features["color"]
    other = {**features, "color": [{**color, "vector": color["vector"].flip(1)}]}
    for scale, changes in ((1.0, True), (0.0, False)):
        one, two = (adapter(f, torch.ones(1, 3), SIZE, scale)[0][:, 1:] for f in (features, other))
        assert (not torch.equal(one, two)) is changes


@pytest.mark.parametrize("gradients", [True, False], ids=["training path", "inference path"])
@pytest.mark.parametrize("absent", NAMES)
def test_an_absent_granularity_does_not_influence_the_others(unet, encoder, adapter, absent, gradients):
    features = encode(encoder, adapter)
    present = [name for name in NAMES if name != absent]
    rows = [NAMES.index(name) for name in present]
    strengths = torch.tensor([[float(name != absent) for name in NAMES]])
    changed = copy.copy(features)
    changed[absent] = [{key: torch.randn_like(value) for key, value in features[absent][0].items()}]
    missing = {name: features[name] for name in present}
    with torch.set_grad_enabled(gradients):
        results = [adapter(f, strengths, SIZE) for f in (features, changed, missing)]
    for tokens, residuals in results[1:]:
        torch.testing.assert_close(tokens[:, rows], results[0][0][:, rows], rtol=0, atol=1e-6)
        for residual, expected in zip(residuals, results[0][1], strict=True):
            torch.testing.assert_close(residual, expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_rows_of_a_batch_with_different_granularities_do_not_mix(unet, encoder, adapter):
    features = encode(encoder, adapter)
    patterns = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3)))
    tokens, residuals = adapter(features, patterns, SIZE)
    assert torch.isfinite(tokens).all() and all(torch.isfinite(residual).all() for residual in residuals)
    for row, pattern in enumerate(patterns):
        alone, own = adapter(features, pattern[None], SIZE)
        torch.testing.assert_close(tokens[row, pattern > 0], alone[0, pattern > 0], rtol=0, atol=1e-5)
        for residual, expected in zip(residuals, own, strict=True):
            torch.testing.assert_close(residual[row], expected[0], rtol=0, atol=1e-5)


@torch.no_grad()
def test_names_of_before_work_and_warn(unet, encoder, adapter):
    features, strengths = encode(encoder, adapter), torch.ones(1, 3)
    with pytest.warns(FutureWarning, match="goes with the next version"):
        varied = adapter.vary(features, 1, drawn=adapter.draw(features, 1, torch.Generator().manual_seed(1)))
        sets, shares = adapter.in_regions(varied)
        apart = adapter.condition_apart(unet, sets[0], strengths, SIZE)
        whole = adapter.condition(unet, varied, strengths, SIZE)
        found = adapter.at_step(*adapter.join_regions([apart], shares, SIZE), torch.ones(3))
        total = adapter.add_residuals(apart[1])
    expected = adapter.assemble_conditioning(
        unet, features, strengths, SIZE, generator=torch.Generator().manual_seed(1)
    ).at_step()
    torch.testing.assert_close([*found[1], *total, *whole[1]], [*expected[1] * 3])
    torch.testing.assert_close(dict(found[0]), dict(expected[0]))


# -- residuals ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [(8, 8), (12, 20), (9, 15)])
def test_residuals_have_the_sizes_the_unet_adds_them_at(any_unet, encoder, size):
    adapter = make_adapter(any_unet, encoder, random=True)
    _, residuals = adapter(encode(encoder, adapter, size=size), torch.ones(1, 3), size)
    sizes = down_block_sizes(adapter.config.block_strides, *size)
    assert [tuple(r.shape) for r in residuals] == [
        (1, width, *side) for width, side in zip(any_unet.config.block_out_channels, sizes, strict=True)
    ]
    features = encode(encoder, adapter, size=size)
    assert steer(any_unet, adapter, features, torch.ones(1, 3), size).shape[2:] == size


def test_what_references_leave_open_is_drawn_for_each_sample(encoder, adapter):
    features = one_of_each(encode(encoder, adapter))
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2, 1)]
    varied = apply_variation(features, 3, draw_variation(features, 3, generators), "free")
    structure, tiles = features["shape"]["structure"], features["texture"]["tiles"]
    found = varied["shape"]["structure"]
    assert torch.equal(found[0], found[2]) and (found[0] - found[1]).abs().max() > 0.1
    assert torch.equal(varied["texture"]["tiles"][0], varied["texture"]["tiles"][2])
    # distances between the false colors of two pixels stay, and so do the tiles but for their order
    one, other = (torch.cdist(x.flatten(1).T, x.flatten(1).T) for x in (structure[0], found[1]))
    torch.testing.assert_close(one, other, atol=1e-3, rtol=0)
    assert not torch.equal(varied["texture"]["tiles"][1], tiles[0])
    torch.testing.assert_close(varied["texture"]["tiles"][1].sum((1, 2)).sort()[0], tiles[0].sum((1, 2)).sort()[0])
    for name, parts in features.items():
        for key in set(parts) - {"structure", "tiles", "light"}:
            assert varied[name][key] is parts[key]


def test_light_stays_light_whatever_is_drawn(encoder, adapter):
    """The structure is turned so that its regions have, as well as a turn can, the colors of the reference."""
    picture = torch.tensor([0.1, 0.1, 0.3]).view(3, 1, 1).repeat(1, 48, 48)
    picture[:, :, 20:] = torch.tensor([0.9, 0.9, 0.8]).view(3, 1, 1)
    picture[:, 30:, 30:] = torch.tensor([0.8, 0.1, 0.1]).view(3, 1, 1)
    features = one_of_each(encoder.encode(dict.fromkeys(NAMES, picture), adapter.map_size(*SIZE)))
    varied = apply_variation(features, 2, draw_variation(features, 2, torch.Generator().manual_seed(0)))["shape"]
    assert torch.equal(varied["structure"][0], varied["structure"][1]) and "light" not in varied
    structure = features["shape"]["structure"]
    colors = rgb_to_lab(F.interpolate(picture[None], structure.shape[2:], mode="bilinear", antialias=True))
    colors = (colors - colors.mean((2, 3), keepdim=True)).flatten(2)

    def agreement(structure):
        return (structure.flatten(2) * colors).sum((1, 2))

    turns = random_turns(torch.randn(200, 3, 3, generator=torch.Generator().manual_seed(0)))
    assert agreement(varied["structure"])[0] > 0.99 * agreement(turn_colors(structure, turns)).max()


def test_tiles_lie_alike_whether_or_not_there_is_a_color(encoder, adapter):
    features = one_of_each(encode(encoder, adapter))
    without = {name: parts for name, parts in features.items() if name != "color"}
    one, other = (
        apply_variation(given, 2, draw_variation(given, 2, torch.Generator().manual_seed(3)))
        for given in (features, without)
    )
    assert torch.equal(one["texture"]["tiles"], other["texture"]["tiles"])
    assert torch.equal(other["shape"]["structure"], features["shape"]["structure"])


def test_random_turns_are_orthogonal_and_have_no_preferred_direction():
    turns = random_turns(torch.randn(4000, 3, 3, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(turns @ turns.transpose(1, 2), torch.eye(3).expand(4000, -1, -1), atol=1e-5, rtol=0)
    assert turns.mean(0).abs().max() < 0.04
    torch.testing.assert_close(turns.square().mean(0), torch.full((3, 3), 1 / 3), atol=0.02, rtol=0)


@pytest.mark.parametrize("size", [(1, 1), (20, 30), (24, 24), (25, 70), (128, 96)])
@pytest.mark.parametrize("count", [1, 2, 16])
def test_laid_tiles_fill_any_canvas_of_constant_energy(size, count):
    canvas = lay_tiles(torch.randn(2, count, 24, 24), *size)
    assert canvas.shape == (2, 1, *size) and torch.isfinite(canvas).all()
    assert count == 1 or size == (1, 1) or canvas.abs().amin((1, 2, 3)).max() < 1


def test_a_laid_palette_has_the_mean_and_covariance_of_the_palette():
    """Whatever the regions are."""
    structure, palette = torch.rand(2, 3, 24, 24) * 2 - 1, torch.randn(2, 256, 3) * torch.tensor([20.0, 8.0, 5.0])
    palette[:, :80] += 40.0
    laid = lay_palette(structure, palette).flatten(2).transpose(1, 2)
    assert laid.shape == (2, 576, 3)
    torch.testing.assert_close(laid.mean(1), palette.mean(1), atol=1.5, rtol=0)
    for direction in nn.functional.normalize(torch.randn(8, 3), dim=1):
        torch.testing.assert_close((laid @ direction).std(1), (palette @ direction).std(1), rtol=0.12, atol=0)


@pytest.mark.parametrize("share", [8, 3])
def test_regions_of_a_laid_palette_stay_regions(share):
    """What is alike in the structure gets like colors, also where the proportions are not those of the palette."""
    region = torch.full((1, 3, 16, 16), 0.4)
    region[..., :share] = -0.4
    structure = region + 0.01 * torch.randn(1, 3, 16, 16)
    palette = torch.tensor([[55.0, 60, 40], [40, 0, -50]]).repeat(64, 1)[None] + 0.1 * torch.randn(1, 128, 3)
    laid = lay_palette(structure, palette)
    left, right = laid[..., :share].flatten(2), laid[..., share:].flatten(2)
    assert left.std(2).max() < 2 and right.std(2).max() < 2 and (left.mean(2) - right.mean(2)).norm() > 80


def test_a_palette_is_laid_in_its_proportions_where_it_is_wanted():
    """Mean and spread of the colors are those of the palette inside the area, whatever lies outside."""
    generator = torch.Generator().manual_seed(1)
    structure = F.interpolate(2 * torch.rand(2, 3, 6, 6, generator=generator) - 1, size=(48, 48), mode="bilinear")
    palette = 60 * torch.rand(2, 256, 3, generator=generator)
    area = torch.zeros(1, 1, 48, 48)
    area[:, :, 10:30, 20:44] = 1
    inside = area[0, 0] > 0
    for laid, is_there in ((lay_palette(structure, palette, area), True), (lay_palette(structure, palette), False)):
        colors = laid[:, :, inside].transpose(1, 2)
        apart = (colors.mean(1) - palette.mean(1)).norm(dim=1)
        assert (apart < 0.1).all() if is_there else (apart > 1).all()
        if is_there:
            torch.testing.assert_close(colors.std(1), palette.std(1), rtol=0.15, atol=0)
    flat = torch.where(inside, 0.1 * structure, structure)  # a hole of nearly one structure, as filled smoothly
    outside = lay_palette(flat, palette, area)[:, :, ~inside]
    assert outside.amin() > palette.amin() - 5 and outside.amax() < palette.amax() + 5
    everywhere = lay_palette(structure, palette, torch.ones(2, 1, 48, 48))
    torch.testing.assert_close(everywhere, lay_palette(structure, palette))
    other = torch.where(inside, structure, torch.rand(2, 3, 48, 48))
    (one, two) = (lay_palette(maps, palette, area)[:, :, inside].mean(2) for maps in (structure, other))
    torch.testing.assert_close(one, two, atol=0.1, rtol=0)


@pytest.mark.parametrize("seed", [2, 4, 5])
def test_a_large_picture_is_laid_as_a_smaller_one_is(monkeypatch, seed):
    """Of more than `SAMPLED` pixels some are sorted: by area, so that a small one does not lose its palette."""
    generator = torch.Generator().manual_seed(seed)
    structure = F.interpolate(2 * torch.rand(3, 3, 6, 6, generator=generator) - 1, size=(96, 96), mode="bilinear")
    palette = 60 * torch.rand(3, 256, 3, generator=generator)
    area = torch.ones(3, 1, 96, 96)
    area[1] *= torch.rand(1, 96, 96, generator=generator)
    area[2] = 0
    area[2, :, 40:50, 60:75] = 1
    laid = lay_palette(structure, palette, area)
    monkeypatch.setattr("mg_diffusion.adapter.sketch.SAMPLED", 48 * 48)
    sampled, mirrored = (
        lay_palette(one, palette, where) for one, where in ((structure, area), (structure.flip(-1), area.flip(-1)))
    )
    assert (mirrored.flip(-1) - sampled).abs().mean() < 0.1
    for few, all_, where in zip(sampled, laid, area, strict=True):
        few, all_ = (one[:, where[0] > 0] for one in (few, all_))
        assert (few - all_).abs().mean() < 3
        torch.testing.assert_close(few.std(1), all_.std(1), rtol=0.1, atol=0)


def test_colors_of_regions_flow_towards_the_palette():
    """As wholes: all together nearer to it than their means are, and each of them even."""
    generator = torch.Generator().manual_seed(3)
    structure = F.interpolate(2 * torch.rand(1, 3, 4, 4, generator=generator) - 1, size=(64, 64), mode="nearest")
    palette = torch.tensor([50.0, 0.0, 0.0]) + torch.randn(1, 256, 3, generator=generator) * torch.tensor(
        [20.0, 15.0, 9.0]
    )
    palette[:, :60] += torch.tensor([10.0, 60.0, 30.0])  # a color of its own
    wanted = palette[0].sort(0).values
    distances = []
    for rounds in (0, 8):
        laid = lay_palette(structure, palette, flow_rounds=rounds)
        assert laid.unflatten(2, (4, 16)).unflatten(4, (4, 16)).std((3, 5)).max() < 0.1
        found = laid[0].flatten(1).sort(1).values[:, 8::16].T
        distances.append((found - wanted).abs().mean())
    assert distances[1] < 0.95 * distances[0]


def test_the_sketch_of_a_mirrored_picture_is_mirrored():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4, 3, 6, 6, generator=generator)
    structure = nn.functional.interpolate(noise, size=(24, 24), mode="bicubic").tanh()
    palette = torch.randn(4, 256, 3, generator=generator) * torch.tensor([20.0, 8.0, 5.0])
    turns = random_turns(torch.randn(4, 3, 3, generator=generator))
    sketch, mirrored = (lay_palette(turn_colors(x, turns), palette) for x in (structure, structure.flip(-1)))
    torch.testing.assert_close(mirrored.flip(-1), sketch, atol=0.01, rtol=0)


def test_a_laid_palette_is_flat_where_the_structure_is():
    laid = lay_palette(0.001 * torch.randn(1, 3, 16, 16), 20 * torch.randn(1, 256, 3))
    assert laid.flatten(2).std(2).max() < 2


def test_tiles_are_laid_where_they_fit_best():
    """Stripes go on across the tiles: of two phases each place takes the one that continues its neighbors."""
    stripes = torch.sin(torch.arange(64) * 2 * torch.pi / 8).expand(64, 64)
    phases = [stripes[:24, shift : shift + 24] for shift in (0, 4, 2, 6)]
    canvas = lay_tiles(torch.stack(phases * 8)[None], 60, 60)[0, 0]
    best = max((canvas * stripes[:60, shift : shift + 60]).mean() for shift in range(4))
    assert abs(best) > 0.4  # 0.5 if nowhere broken; tiles laid in their order: 0.1


def test_a_batch_of_one_palette_serves_all_structures():
    structure, palette = torch.randn(3, 3, 8, 8), torch.randn(1, 16, 3)
    together = lay_palette(structure, palette)
    for row in range(3):
        torch.testing.assert_close(together[row : row + 1], lay_palette(structure[row : row + 1], palette))


def test_laid_tiles_keep_the_deviation_of_noise_everywhere():
    canvas = lay_tiles(torch.randn(200, 16, 24, 24), 64, 64)
    assert canvas.std().item() == pytest.approx(1, rel=0.03)
    deviation = nn.functional.avg_pool2d(canvas.square().mean(0), 2).sqrt()
    assert 0.85 < deviation.min() and deviation.max() < 1.2  # tiles that fit are a little alike where they meet


def test_the_middle_of_a_tile_is_laid_as_it_is():
    tiles = torch.randn(1, 4, 24, 24)
    torch.testing.assert_close(lay_tiles(tiles, 60, 60)[0, 0, 6:18, 6:18], tiles[0, 0, 6:18, 6:18])


# -- construction, checks, strengths -----------------------------------------------------------------------------------
LARGE_BASES = {
    "SD1.5": {"down_block_types": (CROSS,) * 3 + (PLAIN,), "cross_attention_dim": 768},
    "SDXL": {
        "down_block_types": (PLAIN, CROSS, CROSS),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (320, 640, 1280),
        "attention_head_dim": (5, 10, 20),
        "transformer_layers_per_block": (1, 2, 10),
        "use_linear_projection": True,
        "cross_attention_dim": 2048,
    },
}


@pytest.mark.parametrize(
    ("config", "strides", "layers"),
    [(LARGE_BASES["SD1.5"], (1, 2, 4, 8), 16), (LARGE_BASES["SDXL"], (2, 2, 4), 70)],
    ids=list(LARGE_BASES),
)
def test_from_unet_fits_the_large_bases(config, strides, layers):
    with torch.device("meta"):
        unet = UNet2DConditionModel(**{"block_out_channels": (320, 640, 1280, 1280), **config})
        adapter = MGAdapter.from_unet(unet, MGEncoder())
    assert tuple(adapter.config.block_strides) == strides
    assert tuple(adapter.config.block_channels) == tuple(unet.config.block_out_channels)
    assert len(adapter.config.attention_layers) == layers
    adapter.check_unet(unet)


def test_another_unet_is_refused(adapter):
    with pytest.raises(ValueError, match="does not fit the UNet.*first difference is heads of.*against.*from_unet"):
        adapter.check_unet(make_unet(attention_head_dim=8))
    with pytest.raises(ValueError, match=r"down blocks \(16, 24, 32\), the UNet is that of .* down blocks \(16, 24\)"):
        adapter.check_unet(make_unet("SD2-like"))


def test_an_adapter_of_another_large_base_is_refused_by_its_name():
    with torch.device("meta"):
        blocks = {"block_out_channels": (320, 640, 1280, 1280)}
        small, large = (UNet2DConditionModel(**{**blocks, **config}) for config in LARGE_BASES.values())
        adapters = [MGAdapter.from_unet(unet, MGEncoder()) for unet in (small, large)]
    with pytest.raises(ValueError, match="made for Stable Diffusion XL .*that of Stable Diffusion 1 .*768") as refused:
        adapters[1].check_unet(small)
    assert str(refused.value).count("\n") == 0 and len(str(refused.value)) < 450
    with pytest.raises(ValueError, match="made for Stable Diffusion 1 .*that of Stable Diffusion XL .*2048"):
        adapters[0].check_unet(large)


def test_another_encoder_is_refused(adapter, encoder):
    adapter.check_encoder(encoder)
    with pytest.raises(ValueError, match="does not fit the MGEncoder.*same repository"):
        adapter.check_encoder(MGEncoder())


@pytest.mark.parametrize("names", [("color",), ("texture",), ("shape",), ("color", "texture")])
def test_an_adapter_may_know_fewer_granularities(unet, names):
    encoder = MGEncoder(names, color_channels=8, texture_channels=8, num_tiles=6, shape_backbone=BACKBONE).eval()
    adapter = make_adapter(unet, encoder, random=True)
    adapter.check_encoder(encoder)
    features = encode(encoder, adapter, names)
    ones = torch.ones(1, len(names))
    assert (steer(unet, adapter, features, ones) - run(unet)).abs().max() > 1e-3
    assert torch.equal(steer(unet, adapter, features, 0 * ones), run(unet))


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (0.5, [[0.5, 0.5, 0.5]] * 2),
        ({}, [[1.0, 1.0, 1.0]] * 2),
        ({"texture": 0}, [[1.0, 0.0, 1.0]] * 2),
        ({"shape": [0.0, 2.0], "color": 1.5}, [[1.5, 1.0, 0.0], [1.5, 1.0, 2.0]]),
        ({"shape": torch.tensor([0.0, 2.0])}, [[1.0, 1.0, 0.0], [1.0, 1.0, 2.0]]),
        ([0.25, 1.0], [[0.25] * 3, [1.0] * 3]),
    ],
    ids=str,
)
def test_strengths_are_read_per_granularity_and_sample(adapter, scale, expected):
    assert torch.equal(parse_strengths(scale, NAMES, 2), torch.tensor(expected))
    assert torch.equal(adapter.strengths(scale, 2), torch.tensor(expected))


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (-1.0, r"granularity_scale\['color'\] must be finite and at least 0.*got \[-1\.0\]"),
        ({"shape": float("nan")}, r"granularity_scale\['shape'\] must be finite"),
        ({"shape": float("inf")}, r"granularity_scale\['shape'\] must be finite"),
        ({"color": [0.5, -0.5]}, "at least 0"),
        ({"color": [1.0, 1.0, 1.0]}, "one number or one for each of the 2 samples, got 3 numbers"),
        ({"color": []}, "got 0 numbers"),
        ({"light": 1.0}, r"Unknown granularity 'light' in granularity_scale; known are \('color', 'texture', 'shape'\)"),
        ({"color": "much"}, "must be a number or a list of numbers, got 'much'"),
        ({"texture": None}, r"granularity_scale\['texture'\] must be a number or a list of numbers, got None"),
        (None, "must be a number or a list of numbers, got None"),
    ],
)  # fmt: skip
def test_other_strengths_are_refused(scale, message):
    with pytest.raises(ValueError, match=message):
        parse_strengths(scale, NAMES, 2)


# -- saving and loading ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("arguments", [{}, {"low_cpu_mem_usage": False}, {"variant": "fp16"}], ids=str)
def test_loaded_adapter_steers_identically(unet, encoder, adapter, tmp_path, arguments):
    adapter.save_pretrained(tmp_path / "mg_adapter", variant=arguments.get("variant"))
    loaded = MGAdapter.from_pretrained(tmp_path, subfolder="mg_adapter", **arguments)
    loaded.check_unet(unet)
    loaded.check_encoder(encoder)
    assert loaded.state_dict().keys() == adapter.state_dict().keys()
    assert all(torch.equal(value, adapter.state_dict()[key]) for key, value in loaded.state_dict().items())
    features = encode(encoder, adapter)
    one, other = (steer(unet, a, features, torch.ones(1, 3)) for a in (adapter, loaded))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("damage", ["truncated", "foreign weights", "foreign folder", "missing"])
def test_damaged_or_foreign_adapters_are_refused(encoder, adapter, tmp_path, damage):
    folder, weights = tmp_path / "mg_adapter", "diffusion_pytorch_model.safetensors"
    adapter.save_pretrained(folder)
    encoder.save_pretrained(tmp_path / "mg_encoder")
    if damage == "truncated":
        (folder / weights).write_bytes((folder / weights).read_bytes()[:500])
    elif damage == "foreign weights":
        shutil.copy(tmp_path / "mg_encoder" / weights, folder / weights)
    elif damage == "foreign folder":
        folder = tmp_path / "mg_encoder"
    else:
        shutil.rmtree(folder)
    with pytest.raises(ValueError, match=r"(?s)MGAdapter.*check the path and `subfolder`") as error:
        MGAdapter.from_pretrained(folder)
    assert str(folder) in str(error.value)


def test_half_precision_steers_like_full(encoder):
    unet = make_unet()
    adapter = make_adapter(unet, encoder, random=True)
    features = encode(encoder, adapter)
    expected = steer(unet, adapter, features, torch.ones(1, 3))
    unet, adapter = unet.to(torch.bfloat16), adapter.to(torch.bfloat16)
    half = {name: [{key: value.bfloat16() for key, value in f.items()}] for name, (f,) in features.items()}
    attention, residuals = adapter.condition(unet, half, torch.ones(1, 3), SIZE)
    assert all(tensor.dtype == torch.bfloat16 for pair in attention.values() for tensor in pair)
    extra = {"cross_attention_kwargs": {"ip_hidden_states": attention}}
    sample, step, text = inputs(unet)
    with torch.no_grad(), adapter.attach(unet):
        found = unet(sample.bfloat16(), step, text.bfloat16(), down_intrablock_additional_residuals=residuals, **extra)
    assert (found.sample.float() - expected).norm() < 0.1 * expected.norm()


# -- LoRA --------------------------------------------------------------------------------------------------------------
def add_lora(unet):
    peft = pytest.importorskip("peft")
    unet.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q", "to_out.0"], init_lora_weights=False))
    return unet.eval()


@torch.no_grad()
def test_effective_weight_of_a_lora_layer_is_the_merged_weight():
    unet = add_lora(make_unet())
    merged = copy.deepcopy(unet)
    merged.fuse_lora()
    plain = make_unet()
    for layer in MGAdapter.from_unet(plain, make_encoder()).config.attention_layers:
        for name, size in (("to_q", layer["query_dim"]), ("to_out.0", layer["inner_dim"])):
            path = f"{layer['name']}.{name}"
            found = effective_weight(unet.get_submodule(path), size, unet.device, unet.dtype)
            torch.testing.assert_close(found, merged.get_submodule(path).weight, rtol=0, atol=1e-6)
            assert (found - plain.get_submodule(path).weight).abs().max() > 1e-3
            torch.testing.assert_close(
                effective_weight(plain.get_submodule(path), size, plain.device, plain.dtype),
                plain.get_submodule(path).weight,
            )


def test_a_unet_with_lora_is_steered_through_its_merged_weights(encoder):
    unet = add_lora(make_unet())
    adapter = make_adapter(unet, encoder, random=True)
    features = encode(encoder, adapter)
    found = steer(unet, adapter, features, torch.ones(1, 3))
    unet.fuse_lora()
    torch.testing.assert_close(steer(unet, adapter, features, torch.ones(1, 3)), found, rtol=0, atol=1e-4)


# -- training ----------------------------------------------------------------------------------------------------------
def test_gradients_reach_every_parameter_after_two_steps_from_zero():
    """Step one moves the zero-initialized projections, step two alpha and the gains; then everything learns."""
    unet, encoder = make_unet().requires_grad_(False), make_encoder().train()
    adapter = make_adapter(unet, encoder).train()
    parameters = [*adapter.named_parameters(), *encoder.named_parameters()]
    optimizer = torch.optim.AdamW([parameter for _, parameter in parameters], lr=1e-2)
    sample, step, text = inputs(unet, 2)
    target = torch.randn_like(sample)
    rgb = torch.rand(2, 3, 16, 16)
    views = encoder.views(torch.nn.functional.interpolate(rgb, scale_factor=4))
    reached = []
    for _ in range(3):
        attention, residuals = adapter.condition(unet, encoder(views), torch.ones(2, 3), SIZE)
        extra = {"cross_attention_kwargs": {"ip_hidden_states": attention}}
        with adapter.attach(unet):
            output = unet(sample, step, text, down_intrablock_additional_residuals=residuals, **extra).sample
        optimizer.zero_grad()
        (output - target).square().mean().backward()
        reached.append({name for name, p in parameters if p.grad is not None and p.grad.abs().max() > 0})
        assert all(p.grad is None or torch.isfinite(p.grad).all() for _, p in parameters)
        optimizer.step()
    names = {name for name, _ in parameters}
    first = {name for name, _ in adapter.named_parameters() if name.startswith("to_v") or ".outs." in name}
    assert reached[0] == first
    assert reached[1] == {name for name in names if not name.startswith("fusion.") or name == "fusion.alpha"}
    assert reached[2] == names
