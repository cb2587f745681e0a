"""The capabilities, family by family, and what carries a call out once."""
