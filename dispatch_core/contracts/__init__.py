"""The types that cross a border: frozen data and protocols, no behaviour."""
