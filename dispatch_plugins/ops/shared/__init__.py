"""What several op modules use; no plugin of its own."""
