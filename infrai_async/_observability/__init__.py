"""Observability: the events of calls, and their delivery to a listener."""
