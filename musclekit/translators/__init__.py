"""Translators: methods that turn an image into another on the same grid."""
