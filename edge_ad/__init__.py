"""edge-ad: colour + depth anomaly detection on the edge."""

__version__ = "0.1.0"
