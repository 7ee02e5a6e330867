"""Formats of sources, one file each: how a source is divided, and how its parts are read."""
