"""How results look in a notebook, and how progress is shown."""
