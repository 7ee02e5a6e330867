"""sqzb pretrains and finetunes SqueezeBERT end to end."""

__version__ = "0.1.0"
