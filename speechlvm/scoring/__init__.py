"""Scoring: likelihoods of whole corpora."""
