"""For plugin authors: a real offline daemon for tests, and the suites that ops and storage backends must pass."""
