"""Sizes, crops, policies, erasing and mixing of images."""
