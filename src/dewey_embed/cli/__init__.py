"""The command `dewey`: wiring only, one module a command.

Exit codes: 0 done; 1 an error, said in one line; 2 wrong usage; 3 done, but some inputs could not
be read or found; 130 stopped by Ctrl-C; 143 by SIGTERM.
"""

from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    try:
        from dewey_embed.cli.app import main as run
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    run()
