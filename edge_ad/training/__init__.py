"""From good parts to a model directory: frozen features, mappers, text anchors. Needs torch."""
