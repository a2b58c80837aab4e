"""LoRA through peft, put on a base from outside and taken off again without a trace; LoRA files in and out."""

from tenuto import lightly

with lightly.imported():
    from peft import import_utils

    import_utils.is_bnb_available()  # peft remembers the answer
