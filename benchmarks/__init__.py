"""Measurements with the command that made them; see each file."""
