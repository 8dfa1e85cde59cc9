"""One forward pass over up to 128K tokens: a vector for the whole document and for every chunk.

The public names, nothing else. They are imported when first used, so that `import dewey_embed`
costs nothing.
"""
