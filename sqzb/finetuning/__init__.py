"""Finetuning: labelled data and a pretrained model to a run with a classifier."""
