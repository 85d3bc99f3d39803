"""Samples on disk: readers of the published data sets and of own recordings, and synthetic parts."""
