"""Two years of a real shop through the whole pipeline, checked against SQL at the end."""
