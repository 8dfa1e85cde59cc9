"""Commands under faults of the disk, the process and the clock: `python -m tests.faults --help`."""
