"""Kaldi data directories and matrices: reading, writing, validation, repair."""
