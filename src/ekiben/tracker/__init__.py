"""A small server that speaks W&B's protocol to the unmodified `wandb` client. It is not W&B and has none of its UI."""
