"""Code that the benchmarks in scripts/ share: races, spreads, reports and timed commands."""
