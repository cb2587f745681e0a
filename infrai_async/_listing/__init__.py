"""Lists: cursors over pages, pages fetched ahead, and many lists at once."""
