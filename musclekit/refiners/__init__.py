"""Refiners: methods that improve labels."""
