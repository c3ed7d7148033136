"""`python -m mg_diffusion.evaluation` is `mg-diffusion bench`. The judges beside this file import nothing but each other."""

import sys

from mg_diffusion.cli import main


sys.exit(main(["bench", *sys.argv[1:]]))
