"""Find the tests folder of diffusers."""

from pathlib import Path


NEEDED = (
    "__init__.py",
    "testing_utils.py",
    "pipelines/__init__.py",
    "pipelines/pipeline_params.py",
    "pipelines/testing_utils/__init__.py",
    "models/__init__.py",
    "models/testing_utils/__init__.py",
)


def find_tests(place: str | None) -> Path:
    """The folder in `place`, a checkout of diffusers or its tests folder.

    Raises:
        ValueError: if it is not given, or lacks files.
    """
    remedy = (
        "Give a checkout of https://github.com/huggingface/diffusers, or its tests folder: "
        "make test-upstream DIFFUSERS_TESTS=path"
    )
    if not place:
        raise ValueError(f"DIFFUSERS_TESTS is not set. {remedy}")
    root = Path(place).expanduser().resolve()
    if not root.is_dir():
        raise ValueError(f"DIFFUSERS_TESTS={place}: there is no such folder. {remedy}")
    folder = root / "tests" if (root / "tests").is_dir() else root
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"DIFFUSERS_TESTS={place} is not the tests folder of a diffusers of July 2026 or later: {missing[0]} is "
            f"missing. {remedy}"
        )
    return folder
