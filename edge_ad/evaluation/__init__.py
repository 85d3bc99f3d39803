"""How good a detector is: metrics, recall by size of defect, tables, contact sheets, the report."""
