"""What a LoRA did to its base: readings, metrics (one file each), the comparison of arms, and the report."""
