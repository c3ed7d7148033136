"""MG-Bench by the name it had before; it warns, and goes with the next version."""

import sys
import warnings

from .. import mg_bench


warnings.warn("`mg_diffusion.bench` is `mg_diffusion.mg_bench` now.", FutureWarning, stacklevel=2)
sys.modules[__name__] = mg_bench
