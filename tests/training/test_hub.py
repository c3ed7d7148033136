"""`--push_to_hub` against a Hub on localhost: settled before anything is loaded, done at the end."""

import huggingface_hub
import pytest
import yaml
from hub_stand_in import HubStandIn
from huggingface_hub import constants

from mg_diffusion.training import __main__ as command
from mg_diffusion.training.hub import create_repository, push


@pytest.fixture
def hub(monkeypatch):
    """The Hub that this process speaks to, logged in; what the library reads at its import is set anew."""
    with HubStandIn() as hub:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("NO_PROXY", "*")
        monkeypatch.setenv("HF_TOKEN", "a-token")
        huggingface_hub.close_session()
        yield hub
    huggingface_hub.close_session()


def test_a_run_pushes_its_weights_with_card_curves_and_grid(hub, flags, tmp_path, capsys):
    options = {
        "block_out_channels": "16",
        "max_train_steps": 1,
        "hub_model_id": "someone/my-vae",
        "hub_private_repo": "",
    }
    command.main([*flags("vae", tmp_path / "run", **options), "--push_to_hub"])
    pushed = hub.files["someone/my-vae"]
    weights = tmp_path / "run" / "weights"
    assert pushed == {path.name: path.read_bytes() for path in weights.iterdir()}
    assert {"README.md", "curves.png", "grid.png", "config.json", "diffusion_pytorch_model.safetensors"} == set(pushed)
    text = pushed["README.md"].decode()
    assert 'AutoencoderKL.from_pretrained("someone/my-vae")' in text
    assert yaml.safe_load(text.split("---\n")[1])["library_name"] == "diffusers"
    assert hub.is_private == {"someone/my-vae": True}
    assert f"pushed: {hub.endpoint}/someone/my-vae/commit/" in capsys.readouterr().out


def test_the_repository_is_named_as_the_folder_by_default(hub, tmp_path):
    assert create_repository(tmp_path / "my-run") == "someone/my-run" and hub.is_private == {"someone/my-run": False}
    assert create_repository(tmp_path / "my-run") == "someone/my-run"  # it is there already


def refused(flags, output, **changed):
    """The reason of a run that ends before it has loaded or written anything."""
    with pytest.raises(SystemExit) as ended:
        command.main([*flags("vae", output, **changed), "--push_to_hub"])
    assert not output.exists()
    return str(ended.value)


def test_offline_nothing_is_begun(flags, tmp_path):
    assert "--push_to_hub needs the Hub, but HF_HUB_OFFLINE is set" in refused(flags, tmp_path / "run")


def test_who_is_not_logged_in_is_told_to(hub, flags, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    assert "nobody is logged in. Run `hf auth login`, or set HF_TOKEN" in refused(flags, tmp_path / "run")


def test_a_wrong_token_is_refused(hub, flags, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "a-wrong-token")
    reason = refused(flags, tmp_path / "run")
    assert f"'run' cannot be pushed to {hub.endpoint}: " in reason and "it needs the right to write" in reason
    assert hub.files == {}


def test_a_name_that_is_none_is_refused(hub, flags, tmp_path):
    reason = refused(flags, tmp_path / "run", hub_model_id="a/b/c")
    assert "--hub_model_id must be NAME or OWNER/NAME, got 'a/b/c'" in reason


def test_a_hub_that_cannot_be_reached_is_named(hub, flags, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    reason = refused(flags, tmp_path / "run")
    assert "cannot be pushed to http://127.0.0.1:9: " in reason and "Check the connection" in reason


def test_a_push_that_fails_names_the_command_that_repeats_it(hub, tmp_path, monkeypatch):
    """As when the token has expired in the meantime."""
    create_repository(tmp_path / "run", "someone/it")
    (tmp_path / "run" / "weights").mkdir(parents=True)
    (tmp_path / "run" / "weights" / "config.json").write_text("{}")
    monkeypatch.setenv("HF_TOKEN", "a-wrong-token")
    with pytest.raises(
        ValueError, match=r"(?s)weights are in .*run/weights', but .*`hf upload someone/it .*run/weights`"
    ):
        push(tmp_path / "run", "someone/it", "Weights")
    assert hub.files == {"someone/it": {}}
