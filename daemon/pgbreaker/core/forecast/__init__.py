"""What runs out, what is unlike usual, what is likely to fail: it only ever warns."""
