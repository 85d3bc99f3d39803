"""What is set once on good parts: score thresholds, the scene, INT8 ranges."""
