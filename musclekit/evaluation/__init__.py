"""Scores of methods on cases."""
