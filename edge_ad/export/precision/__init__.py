"""Precision lives in the graph: FP16 by casts, INT8 by explicit Q/DQ, and the rounding twin that measures FP16."""
