"""Training: the trainer, its schedules, validation, and training in several processes."""
