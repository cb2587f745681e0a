"""The protocol of one call, without I/O: building the request, reading the response, deciding about retries."""
