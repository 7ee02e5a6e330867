"""Chunks to a pretrained model."""
