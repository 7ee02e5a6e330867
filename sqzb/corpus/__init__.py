"""Text to chunks on disk, once."""
