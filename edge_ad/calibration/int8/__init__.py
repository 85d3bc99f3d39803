"""INT8: histograms of real activations, four calibrators, a table that people read, and what each block costs."""
