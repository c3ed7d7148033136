"""The first picture is slow: it is made before anyone asks, while nobody does."""

import os
import sys
import threading

from demo import links
from demo.inference import Studio
from demo.jobs import Job, Stopped
from demo.references import reference
from demo.settings import Settings
from mg_diffusion.granularities import GRANULARITIES


VARIABLE = "MG_WARM_UP"


def is_wanted() -> bool:
    """Whether a page that starts makes a picture for itself.

    Raises:
        ValueError: if MG_WARM_UP is neither 0 nor 1.
    """
    # On ZeroGPU there is a GPU during jobs of visitors only.
    said = os.environ.get(VARIABLE) or ("0" if os.environ.get("SPACES_ZERO_GPU") else "1")
    if said not in ("0", "1"):
        raise ValueError(
            f"{VARIABLE} must be 1 (a picture is made when the page starts) or 0 (none is), got {said!r}."
        )
    return said == "1"


def warm_up(studio: Studio) -> bool:
    """Load the model and, if that is wanted, make the picture of a new page; whether it was made.

    It ends between two steps when a visitor asks for something, and is kept nowhere.
    """
    try:
        loaded = studio.models.get()
        if not is_wanted():
            return False
        references = {name: [reference(links.START[name])] for name in GRANULARITIES}
        settings = Settings(dict.fromkeys(GRANULARITIES, 1.0))
        studio.make(loaded, references, settings, 0, Job(1, is_stopped=studio.is_wanted.is_set))
    except Stopped:
        return False
    except ValueError as error:  # the page tells it as well, whenever someone asks for a picture
        print(f"error: {error}", file=sys.stderr)
        return False
    return True


def start(studio: Studio) -> threading.Thread:
    """`warm_up` beside the page, which opens at once."""
    thread = threading.Thread(target=warm_up, args=(studio,), daemon=True)
    thread.start()
    return thread
