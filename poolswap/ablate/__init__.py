"""Ablations: how many layers, which operator, which adaptation, each against the unmodified model treated alike."""
