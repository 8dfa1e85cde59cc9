"""Making models: recipes and warm starts. A teacher that speaks needs the `teacher` extra."""
