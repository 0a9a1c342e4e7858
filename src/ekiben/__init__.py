"""Ekiben carries a model tracked in Weights & Biases to live traffic."""
