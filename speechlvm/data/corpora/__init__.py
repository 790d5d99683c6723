"""Corpora: download, unpacking, conversion, and shared code of preparation."""
