"""The model: packed sequences in, hidden states and pooled vectors out. Knows no text."""
