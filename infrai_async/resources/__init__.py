"""The capabilities as methods of the same name: a signature, a docstring, one line."""
