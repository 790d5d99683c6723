"""Corpora: download, unpacking, conversion, and code that preparations share."""
