"""The histories on disk: read into the index, a pass at a time, and searched."""
