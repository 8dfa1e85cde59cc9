"""The report: pages of results as one self-contained HTML file, as Markdown, and as pictures.

::

    result files → pages.py → Group of Page → markup.py             HTML and Markdown
                                            → plots.py, marks.py    SVG and PNG of a plot
                                            → output.py             files

It does not know how anything was measured: it shows the content of the files.
"""
