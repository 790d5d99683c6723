"""Training: the trainer, its schedules, validation, and distributed training."""
