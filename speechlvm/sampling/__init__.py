"""Samples from trained models: prior, continuations, reconstructions, and variations of latents."""
