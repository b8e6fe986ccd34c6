"""How figures look: one style, axes that fit, text that can be read."""
