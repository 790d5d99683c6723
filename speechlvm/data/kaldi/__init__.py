"""Kaldi data directories and matrices: reading, writing, validating and fixing."""
