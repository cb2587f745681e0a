"""What a flag evaluates to for one context, without I/O."""
