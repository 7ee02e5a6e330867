"""GLUE: its tasks, its files, its metrics and its submission. Nothing here knows a model."""
