"""LoRA through peft, put on a base from outside and taken off again without a trace; LoRA files in and out."""
