"""What pretraining and finetuning stand on: one exact step, run folders, checkpoints."""
