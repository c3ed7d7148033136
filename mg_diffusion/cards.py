"""The old name of `mg_diffusion.model_card`."""

import warnings

from mg_diffusion.model_card import main


if __name__ == "__main__":
    message = "mg_diffusion.cards is now mg_diffusion.model_card; the old name goes with the next version."
    warnings.warn(message, FutureWarning, stacklevel=1)
    main()
