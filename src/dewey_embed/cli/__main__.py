"""`python -m dewey_embed.cli` is `dewey`."""

from dewey_embed.cli import main

main()
