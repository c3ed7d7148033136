"""Whether a picture that is there already is the one that is asked for: every file holds its recipe."""

import json
from pathlib import Path
from typing import Any

from ..recipe import read_recipe


OF_THE_RESULT = ("versions", "height", "width")  # which flags need not say
TEXTS = ("prompt", "negative_prompt")  # without the flag there is none


def is_other(target: Path, asked: dict[str, Any], defaulted: tuple[str, ...]) -> bool:
    """Whether a file holds another recipe than the one that is asked for, or none.

    Args:
        asked: what the flags say, as recipes have it.
        defaulted: settings that the pipeline has where no flag gives them: it is not loaded to compare them.
    """
    try:
        found = read_recipe(target)
    except (ValueError, OSError):
        return True
    found, wanted = _comparable(found), _comparable(json.loads(json.dumps(asked)))
    unsaid = {key for key in (*OF_THE_RESULT, *defaulted) if key not in TEXTS and wanted.get(key) is None}
    return any(found.get(key) != wanted.get(key) for key in (found.keys() | wanted.keys()) - unsaid)


def _comparable(value: Any) -> Any:
    """Without names of files, which may have moved: their hashes tell."""
    if isinstance(value, dict):
        return {key: _comparable(one) for key, one in value.items() if key != "file"}
    return [_comparable(one) for one in value] if isinstance(value, list) else value
