"""The transport: the only modules that do I/O for a call."""
