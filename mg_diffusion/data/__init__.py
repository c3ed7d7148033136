"""Data for training: what `mg-diffusion data check` and `mg-diffusion data bazaar128` do. Needs no torch."""
