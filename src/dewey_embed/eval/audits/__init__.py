"""The paper's experiments as commands: each takes a model and data, and ends in a `ResultPage`."""
