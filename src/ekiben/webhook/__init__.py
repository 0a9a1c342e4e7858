"""The receiver of W&B's automations: what they sign and send becomes a promotion."""
