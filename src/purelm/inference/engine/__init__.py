"""Many requests at once through one model, each answered as if it were alone."""
