"""What runs did: a page for the browser, and the same tables for the terminal.

A report reads the folders of runs and needs neither their data nor their models.
"""
