"""Labelled data of any origin: splits, kinds of labels, and metrics of predictions."""
