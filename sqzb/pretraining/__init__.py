"""Pretraining: from the chunks of a corpus to a pretrained model."""
