"""Listings: cursors over pages, prefetching, and listing many parents concurrently."""
