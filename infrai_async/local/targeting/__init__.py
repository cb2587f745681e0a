"""Evaluate feature flags for an evaluation context, without I/O."""
