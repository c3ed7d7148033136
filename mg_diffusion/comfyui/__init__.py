"""Nodes for ComfyUI: https://github.com/comfyanonymous/ComfyUI finds them where this folder, or a link to it, lies in
`custom_nodes`; see docs/comfyui.md.

The folder is at once a subpackage and a custom node: its files import each other relatively and the rest of the library by
its installed name, since ComfyUI loads them under a name of its own. Nothing here imports ComfyUI when it is loaded.
"""

from .composing import MGCompose
from .filters import MGDenoise, MGEnlarge, MGRecolor
from .guidance import MGFeatureGuidance
from .models import MGModel
from .palettes import MGEditPalette, MGExtractPalette
from .pasting import MGExactPaste
from .references import MGReference
from .seeing import MGViews


NODE_DISPLAY_NAME_MAPPINGS = {
    "MGModel": "MG Model (encoder, detail network)",
    "MGReference": "MG Reference (one of several)",
    "MGCompose": "MG Compose References",
    "MGExtractPalette": "MG Extract Palette",
    "MGEditPalette": "MG Edit Palette",
    "MGRecolor": "MG Recolor",
    "MGDenoise": "MG Denoise",
    "MGEnlarge": "MG Enlarge",
    "MGViews": "MG What a Granularity Sees",
    "MGExactPaste": "MG Exact Paste",
    "MGFeatureGuidance": "MG Feature Guidance",
}
_NODES = (
    MGModel,
    MGReference,
    MGCompose,
    MGExtractPalette,
    MGEditPalette,
    MGRecolor,
    MGDenoise,
    MGEnlarge,
    MGViews,
    MGExactPaste,
    MGFeatureGuidance,
)
NODE_CLASS_MAPPINGS = {node.__name__: node for node in _NODES}
__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
