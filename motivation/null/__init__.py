"""What a trigger does on noise: null rates and the noise model behind them."""
