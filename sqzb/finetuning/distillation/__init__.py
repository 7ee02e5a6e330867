"""Finetuning from teachers: their logits, more text for them to label, and the loss."""
