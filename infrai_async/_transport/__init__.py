"""The only place that does I/O for a call."""
