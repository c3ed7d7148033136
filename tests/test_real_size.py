"""What is compared at real size runs on a tiny UNet, and the page says what was measured."""

import json

import pytest
import torch
from pipelines.tiny import tiny_unet

from benchmarks.pages import PAGE, RESULTS, TRAINING, rewritten, scores
from benchmarks.peers import PEERS
from benchmarks.real_size import parse_arguments, summary, table
from benchmarks.speed import step_inputs


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return tiny_unet(4, is_inpainting=False).requires_grad_(False)


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(set(PEERS) - {"ip_adapter"}))  # whose image encoder has its real size
def test_every_method_takes_a_step_and_leaves_the_unet_as_it_was(unet, name):
    inputs = step_inputs(unet, side=8)
    before, state = unet.attn_processors, {key: value.clone() for key, value in unet.state_dict().items()}
    peer = PEERS[name](unet, unet, inputs, 8)
    peer.once()
    with peer.around():
        first, second = (peer.step()[0] for _ in range(2))
    assert first.shape == inputs["sample"].shape and torch.equal(first, second)
    assert all(a is b for a, b in zip(before.values(), unet.attn_processors.values(), strict=True))
    assert all(torch.equal(value, state[key]) for key, value in unet.state_dict().items())
    assert (name == "plain") == (not peer.parts)


def test_figures_are_given_beside_the_unet_alone():
    one = {"step_ms": 100.0, "once_ms": 0.0, "parameters": 0, "peak_mib": 1000.0}
    other = {"step_ms": 103.0, "once_ms": 50.0, "parameters": 2_000_000, "peak_mib": 1100.0}
    found = summary({"plain": one, "ours": other})
    assert found["ours"]["step_ratio"] == 1.03 and found["ours"]["once_in_steps"] == 0.5
    assert "| ours, three references | 103 | 1.030 | 0.50 | 2.0 | 1100 | 1.10 |" in table(found)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--side", "12"], "--side must be a multiple of 8"),
        (["--repeats", "0"], "--repeats must be at least 1"),
        (["--methods", "ours"], "--methods must hold plain"),
    ],
)
def test_flags_that_cannot_be_are_refused(flags, message, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(flags)
    assert message in capsys.readouterr().err


def test_the_page_has_the_figures_of_the_results():
    """If this fails, run `python -m benchmarks.pages`."""
    for place in (PAGE, TRAINING):
        page = place.read_text(encoding="utf-8")
        assert rewritten(page, place) == page
    page = PAGE.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="must have one block `<!-- speed -->`"):
        rewritten(page.replace("<!-- speed -->", ""))
    found = json.loads((RESULTS / "adapter_stage.json").read_text(encoding="utf-8"))
    assert f"| {scores(found, 'retrieval_synthetic')[2]:.1f} |" in page
