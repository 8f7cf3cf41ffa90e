"""The two tiers, the backbones behind them, and their checkpoints."""
