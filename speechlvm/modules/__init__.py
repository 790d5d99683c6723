"""Layers and other building blocks that several systems share."""
