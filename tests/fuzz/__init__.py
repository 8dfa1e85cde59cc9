"""Promises about any bytes: their targets, a corpus, and the command that runs them."""
