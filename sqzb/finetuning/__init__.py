"""Finetuning on GLUE: the tasks as one table, their data and their metrics."""
