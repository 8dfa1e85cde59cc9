"""Documents kept on disk and searched: LanceDB tables, and arrays for searching derived from them.

`index.py` and `sync.py` use the encoder; all modules below them know vectors, spans and documents,
and neither models nor files to read.
"""
