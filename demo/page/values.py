"""From the page to the studio: payloads as references, settings and paths, and errors as messages.

Inputs are taken as they come (`preprocess=False`): pictures are decoded in `demo.uploads`, after they were checked.
"""

import functools
import inspect
import logging
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import gradio as gr

from demo.jobs import Stopped
from demo.page.described import documented
from demo.settings import ASPECT, ASSIGNMENTS, SIZE, SIZES, Settings, choice
from mg_diffusion.granularities import GRANULARITIES


Values = dict[str, Any]
NO_UPLOAD = "This is no uploaded file. Upload it, and give what the upload returns."


def path_of(payload: Any) -> str | None:
    """The path of an uploaded file, which must lie where uploads lie."""
    if not payload:
        return None
    path = payload.get("path") if isinstance(payload, dict) else None
    if not isinstance(path, str) or not path:
        raise ValueError(NO_UPLOAD)
    if not is_upload(path):
        raise ValueError(NO_UPLOAD)
    if not Path(path).is_file():
        raise ValueError("The uploaded file is gone: files are removed after an hour. Give it again.")
    return path


def is_upload(path: str) -> bool:
    """Whether a path lies where uploads and results lie, or lay."""
    folder = Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir(), "gradio")).resolve()
    try:
        Path(path).is_file()
        return Path(path).resolve().is_relative_to(folder)
    except (OSError, ValueError):  # a name that no file can have
        return False


def slot_of(name: str, values: Values) -> dict[str, Any]:
    """What is given for one granularity."""
    return {
        "picture": path_of(values.get(f"{name}_picture")),
        "palette": values.get("color_palette") if name == "color" else None,
        "card": path_of(values.get(f"{name}_card")),
    }


def asked(values: Values) -> tuple[dict[str, dict[str, Any]], Settings, str | None]:
    """References, settings and model of the inputs that all tabs share."""
    given = {name: slot_of(name, values) for name in GRANULARITIES}
    scales = {name: values.get(f"{name}_scale") for name in GRANULARITIES}
    numbers = {name: values.get(name) for name in ("seed", "steps", "guidance")}
    more = {"count": values.get("count", 1), "keep": bool(values.get("keep", True))}
    more |= {"size": int(choice(values.get("size") or str(SIZE), "The size", tuple(map(str, SIZES))))}
    more |= {"aspect": values.get("aspect") or ASPECT, "assignment": values.get("assignment") or ASSIGNMENTS[0]}
    more |= {"coarseness": 1.0 if values.get("coarseness") is None else values["coarseness"]}
    return given, Settings(scales, values.get("prompt") or "", **numbers, **more), values.get("model")


def told(handler: Callable) -> Callable:
    """What goes wrong in a handler is told in words; what nobody foresaw is logged here and not shown."""

    @functools.wraps(handler)
    def wrapper(*args: Any, **values: Any) -> Any:
        try:
            return handler(*args, **values)
        except Stopped as error:
            raise gr.Error("Stopped.", title="Stopped", print_exception=False, duration=3) from error
        except ValueError as error:
            raise gr.Error(str(error), title="This cannot work", print_exception=False) from error
        except gr.Error:
            raise
        except Exception as error:
            logging.exception("in %s", handler.__name__)
            raise gr.Error("Something went wrong on the server. Try again.", print_exception=False) from error

    return wrapper


def named(handler: Callable, names: Iterable[str]) -> Callable:
    """A handler of **values as one with named parameters: the API has their names, and what has no value is optional."""
    first = [inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=gr.Request)]
    takes_request = "request" in inspect.signature(handler).parameters
    optional = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None) for name in names]
    signature = inspect.Signature([*(first if takes_request else []), *optional])

    @functools.wraps(handler)
    def wrapper(*args: Any, **values: Any) -> Any:
        return handler(**signature.bind(*args, **values).arguments)

    wrapper.__signature__ = signature
    wrapper.__doc__ = documented(handler.__doc__, [parameter.name for parameter in optional])
    return wrapper
