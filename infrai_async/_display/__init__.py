"""Display of results in notebooks, and of progress."""
