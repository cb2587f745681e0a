"""Listings: cursors over pages, prefetching, fan-out over many listings, and resumable inventories."""
