"""Finetuning from teachers: their logits over the training examples, more text for them to label, and the loss."""
