"""Training of models like the embedded default: stage `vae`, an autoencoder, and stage `base`, all the rest."""
