"""Samples from a trained model: prior, continuations, reconstructions, and variations of latents."""
