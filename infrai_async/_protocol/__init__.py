"""One call without I/O: the request, the answer and what becomes of it."""
