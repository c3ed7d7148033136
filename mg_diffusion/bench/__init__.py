"""MG-Bench: drives `mg_diffusion.evaluation` with a pipeline. Needs the extra `eval`."""
