"""Lossless compression: any model of PCM as a codec whose files are as long as its likelihoods say."""
