"""What is kept on disk: the truth in LanceDB, and the nearest neighbours derived from it.

Knows vectors, spans and documents; knows nothing of models, tokenizers or files to read.
"""
