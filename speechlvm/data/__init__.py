"""From corpora on disk to batches: reading audio, data directories, dumps, data sets."""
