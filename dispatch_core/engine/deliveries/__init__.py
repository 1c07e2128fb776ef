"""Messages on their way: accepted, sent one at a time in each thread, followed to their end, also across crashes."""
