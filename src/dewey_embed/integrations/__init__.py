"""Other frameworks: each of their documents is encoded in one pass, its chunks with it."""
