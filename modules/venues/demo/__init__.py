"""The parts of the demo market: its catalog and script, its noise and regimes, and the paths of coins, pairs and option chains."""
