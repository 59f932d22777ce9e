"""Public conformance kits, and sound and corpora made on the spot for tests."""
