"""The tests: ``trial tests``."""
