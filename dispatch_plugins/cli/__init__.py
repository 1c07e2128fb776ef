"""The command line: a click group built from the manifest, and a short way past click for plain calls."""
