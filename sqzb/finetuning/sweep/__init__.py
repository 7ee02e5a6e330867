"""Many runs of finetune, over stages, tasks, settings and seeds, each an ordinary run in a process of its own.

Nothing but the runs' own folders says how far a sweep has come.
"""
