"""Peers' ways of conditioning, from diffusers' own classes, on the frozen miniature base: trained and benched alike."""
