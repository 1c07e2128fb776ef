"""Full-text search over histories, in ``index.db`` beside the registry: disposable, and without the text itself."""
