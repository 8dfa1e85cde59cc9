"""The paper's experiments as commands: each measures a model on data and returns a `ResultPage`."""
