"""What the benchmarks in scripts/ share: races in turns, spreads, reports, and commands that are timed."""
