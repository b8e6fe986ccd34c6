"""Attack a trained network and score it: views in, leakage, utility and reconstructions out."""
