"""`--push_to_hub`: whether a run may push is settled before anything is loaded; its weights are pushed at the end."""

from pathlib import Path

from huggingface_hub import HfApi, is_offline_mode
from huggingface_hub.errors import HFValidationError, HTTPError, LocalTokenNotFoundError


FAILURES = (OSError, HTTPError)  # answers of the Hub are both; a connection that fails is one of them


def create_repository(output_dir: str | Path, hub_model_id: str | None = None, is_private: bool = False) -> str:
    """Create the repository `hub_model_id`, by default named as the output folder, if there is none; its full id.

    Raises:
        ValueError: if the Hub cannot be reached, nobody is logged in, or the repository may not be written.
    """
    if is_offline_mode():
        raise ValueError(
            "--push_to_hub needs the Hub, but HF_HUB_OFFLINE is set. Unset it, or push later: `hf upload`."
        )
    name = hub_model_id or Path(output_dir).resolve().name
    hub = HfApi()
    try:
        hub.whoami()  # or a wrong token would show only where the repository exists
        return hub.create_repo(name, private=is_private or None, exist_ok=True).repo_id
    except LocalTokenNotFoundError as error:
        raise ValueError("--push_to_hub: nobody is logged in. Run `hf auth login`, or set HF_TOKEN.") from error
    except HFValidationError as error:
        raise ValueError(f"--hub_model_id must be NAME or OWNER/NAME, got {name!r}: {error}") from error
    except FAILURES as error:
        raise ValueError(
            f"--push_to_hub: {name!r} cannot be pushed to {hub.endpoint}: {error} Check the connection, the token "
            f"(`hf auth whoami`; it needs the right to write) and --hub_model_id."
        ) from error


def push(output_dir: str | Path, repo_id: str, message: str) -> str:
    """Upload `weights/` with all that lies there; the address of the commit.

    Raises:
        ValueError: if that fails; names the command that repeats it.
    """
    weights = Path(output_dir, "weights")
    try:
        return HfApi().upload_folder(repo_id=repo_id, folder_path=weights, commit_message=message).commit_url
    except FAILURES as error:
        raise ValueError(
            f"The run is done and its weights are in {str(weights)!r}, but they could not be pushed: {error} "
            f"Try again with `hf upload {repo_id} {weights}`."
        ) from error
