"""`python -m mg_diffusion.cli` is `mg-diffusion`."""

import sys

from mg_diffusion.cli import main


sys.exit(main())
