"""Data, from corpora on disk to batches: audio files, data directories, dumps, data sets."""
