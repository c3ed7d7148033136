"""Cards, weights and the Space go to the Hub by one command, here to a Hub on localhost."""

import huggingface_hub
import pytest
from hub_stand_in import HubStandIn
from huggingface_hub import constants

from tools import upload


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


@pytest.fixture
def cards(tmp_path, model):
    """Cards as they lie in hub_cards, with a very small model and what should not go up."""
    folder = tmp_path / "hub_cards"
    (folder / "mg-bazaar").mkdir(parents=True)
    for path in model.rglob("*"):
        target = folder / "mg-bazaar" / path.relative_to(model)
        target.mkdir(exist_ok=True) if path.is_dir() else target.write_bytes(path.read_bytes())
    (folder / "mg-bazaar" / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A card\n")
    (folder / "mg-bazaar" / "__pycache__").mkdir(exist_ok=True)
    (folder / "mg-bazaar" / "__pycache__" / "a.pyc").write_bytes(b"")
    (folder / "mg-bazaar" / ".DS_Store").write_bytes(b"")
    (folder / "mg-bazaar-modular").mkdir()
    (folder / "mg-bazaar-modular" / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Blocks\n")
    return folder


def test_a_dry_run_lists_what_would_go_up_and_asks_nobody(hub, cards, capsys):
    upload.main(["someone", "--dry-run", "--cards", str(cards)])
    said = capsys.readouterr().out
    assert not hub.files
    for line in ("model someone/mg-bazaar: ", "model someone/mg-bazaar-modular: ", "space someone/mg-diffusion: "):
        assert line in said
    for name in (
        "unet/diffusion_pytorch_model.safetensors",
        "modular_model_index.json",
        "demo/page/agents.py",
        "app.py",
    ):
        assert f"  {name}\n" in said
    assert ".pyc" not in said and ".DS_Store" not in said and said.endswith("Nothing was uploaded. HF_TOKEN is set.\n")


def test_all_of_it_goes_up(hub, cards, capsys):
    upload.main(["someone", "--cards", str(cards)])
    assert set(hub.files) == {"someone/mg-bazaar", "someone/mg-bazaar-modular", "someone/mg-diffusion"}
    model = hub.files["someone/mg-bazaar"]
    assert model["unet/config.json"] == (cards / "mg-bazaar" / "unet" / "config.json").read_bytes()
    assert not [name for name in model if name.endswith((".pyc", ".DS_Store"))]
    modular = hub.files["someone/mg-bazaar-modular"]
    assert (
        modular["README.md"].endswith(b"# Blocks\n")
        and b"someone/mg-bazaar-modular" in modular["modular_model_index.json"]
    )
    space = hub.files["someone/mg-diffusion"]
    assert space["README.md"].startswith(b"---\ntitle: MG-Diffusion\n") and "demo/app.py" in space
    assert capsys.readouterr().out.count(f"{hub.endpoint}/") == 3
    upload.main(["someone", "--cards", str(cards)])  # once more, over what is there


@pytest.mark.parametrize(("owner", "missing", "message"), [
    ("not a name", None, "OWNER must be the name"),
    ("someone", "README.md", "must have a card"),
    ("someone", "*.safetensors", "must have weights"),
])  # fmt: skip
def test_what_is_not_complete_does_not_go_up(hub, cards, owner, missing, message):
    for path in (cards / "mg-bazaar").rglob(missing) if missing else ():
        path.unlink()
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        upload.main([owner, "--cards", str(cards)])
    assert not hub.files


def test_who_is_not_logged_in_is_told_before_anything_goes_up(hub, cards, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "a-wrong-token")
    with pytest.raises(SystemExit, match="error: .*(401|Invalid)"):
        upload.main(["someone", "--cards", str(cards)])
    assert not hub.files
