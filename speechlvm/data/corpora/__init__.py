"""Getting corpora: download, unpacking, conversion, and what preparing them reports."""
