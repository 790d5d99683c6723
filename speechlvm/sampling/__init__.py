"""Samples from the prior, continuations of real speech, reconstructions."""
