"""Text in: files become documents, documents become tokens, tokens become spans."""
