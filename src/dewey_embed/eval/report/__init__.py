"""The report: `ResultPage` as one self-contained page, as Markdown, and as pictures.

::

    result files → pages.py → Group of Page → html.py      one file, no request leaves it
                                            → markdown.py  tables, links to pictures
                                            → plots.py     SVG and PNG of a plot

Knows nothing of how anything was measured: what a reader sees is what the files hold.
"""
