"""Runs shared out among processes: on one machine, on a Ray cluster, on Slurm."""
