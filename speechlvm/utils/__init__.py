"""What every layer uses: errors, files, locks, processes, settings."""
