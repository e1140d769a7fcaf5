"""Segmenters: methods that turn an image into labels."""
