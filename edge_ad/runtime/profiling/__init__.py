"""Where the milliseconds and megabytes of a frame go, and how far that is from what the machine could do."""

from edge_ad.runtime.profiling.measure import Profile, profile

__all__ = ["Profile", "profile"]
