"""Object storage: the files that hold the bytes, signatures of presigned URLs, and streaming of bodies."""
