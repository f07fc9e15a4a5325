"""Rollouts that decide on evidence: a pure core, its statistics, and the driver that acts."""
