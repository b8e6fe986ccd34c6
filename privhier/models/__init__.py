"""Staged backbones, the cut, the bottleneck, exits, edge segment and cloud tail."""
