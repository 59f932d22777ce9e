"""Self-supervised targets and losses for speech. Tensors in, `LossOutput` out; torch only."""
