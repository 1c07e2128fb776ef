"""What the daemon does with threads: dispatch ops, track lanes, fire triggers, publish events."""
