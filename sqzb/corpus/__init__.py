"""Text, prepared once as chunks of tokens on disk."""
