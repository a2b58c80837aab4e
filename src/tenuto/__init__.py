"""tenuto: teach a diffusion model one new thing with a LoRA, and hold everything else."""

__version__ = "0.1.0"
