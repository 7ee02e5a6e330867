"""Sweeps: many runs of finetune over stages, tasks, settings and seeds, each in its own process.

The progress of a sweep is stored only in the folders of its runs.
"""
