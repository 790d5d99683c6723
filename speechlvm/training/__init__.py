"""Training: schedules, the trainer, checkpoints."""
