"""Likelihoods of whole corpora."""
