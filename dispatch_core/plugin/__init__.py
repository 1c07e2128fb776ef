"""Loading in five steps: scan → vet → load → declare → freeze. A broken plugin costs exactly that plugin."""
