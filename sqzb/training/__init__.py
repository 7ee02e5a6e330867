"""The base of pretraining and finetuning: one exact step, run folders, checkpoints."""
