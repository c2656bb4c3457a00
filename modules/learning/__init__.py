"""What the bot draws from its own net results: allocation between strategies and calibration of their scores. Pure computation."""
