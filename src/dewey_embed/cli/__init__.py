"""The command `dewey`: wiring only, one module a command.

Exit codes: 0 done; 1 an error, said in one line; 2 wrong usage; 3 done, but some inputs could not
be read; 130 stopped by Ctrl-C.
"""

from dewey_embed.cli.app import main

__all__ = ["main"]
