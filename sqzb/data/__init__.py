"""A labelled data set, whatever it was read from: its splits, what its labels are, and how predictions are measured."""
