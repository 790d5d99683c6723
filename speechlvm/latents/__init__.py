"""Latent space analysis: extraction of latents and hidden states, analyses and probes."""
