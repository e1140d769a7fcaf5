"""A digital thigh with exact truth."""
