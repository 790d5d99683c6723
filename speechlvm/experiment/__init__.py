"""Experiments on disk: configuration, checkpoints, exports, and loading a trained model."""
