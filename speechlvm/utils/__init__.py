"""Used by every layer: errors, files, locks, processes, settings."""
