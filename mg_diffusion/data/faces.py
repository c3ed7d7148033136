"""Pictures with faces: a rough detector, where scikit-image is installed."""

import numpy as np
import PIL.Image


SIDE = 128  # pixels of the longer side that are searched: a face counts from about a fifth of it
FACE = 24  # pixels of a side: what the cascade was trained on
HINT = "needs scikit-image: pip install 'mg-diffusion[eval]'"


class FaceDetector:
    """Counts frontal faces with the cascade of local binary patterns that comes with scikit-image.

    Liao et al., "Learning Multi-scale Block Local Binary Patterns for Face Recognition", 2007. A rough detector: it finds
    large upright faces that look at the camera, misses profiles, and takes some round things for faces (docs/data.md).

    Raises:
        ImportError: if scikit-image is missing.
    """

    name = "scikit-image's cascade of frontal faces"

    def __init__(self):
        from skimage.data import lbp_frontal_face_cascade_filename
        from skimage.feature import Cascade

        self._cascade = Cascade(lbp_frontal_face_cascade_filename())

    def count(self, image: PIL.Image.Image) -> int:
        """How many faces an RGB picture shows."""
        small = image.convert("L")
        small.thumbnail((SIDE, SIDE), PIL.Image.Resampling.BICUBIC)
        pixels = np.asarray(small)
        if min(pixels.shape) < FACE:
            return 0
        options = {"scale_factor": 1.2, "step_ratio": 1.5, "min_neighbor_number": 3}
        return len(self._cascade.detect_multi_scale(pixels, min_size=(FACE, FACE), max_size=pixels.shape, **options))


def find_detector() -> tuple[FaceDetector | None, str]:
    """A detector and its name, or `None` and the reason why there is none."""
    try:
        return FaceDetector(), FaceDetector.name
    except ImportError:
        return None, HINT
