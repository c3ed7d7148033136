"""What all pipelines share, whatever base they steer and wherever they start from."""

from .attribution import Attributed
from .call import Sampling
from .callbacks import CalledBack
from .composed_start import ComposedStart
from .conditioning import Conditioned
from .detailing import Detailed
from .feature_guidance import FeatureGuided
from .other_adapters import OtherAdapters
from .references import References
from .saving import SavedPipeline


class Steered(
    References,
    Conditioned,
    FeatureGuided,
    ComposedStart,
    Attributed,
    OtherAdapters,
    SavedPipeline,
    Detailed,
    CalledBack,
    Sampling,
):
    """A call that references steer; it stands before `DiffusionPipeline`, and after what a base and a source hand over."""
