"""Prompts to tokens to features, for CLIP text encoders.

Shapes: B prompts, P passes of 77 tokens (a begin mark, CHUNK of the prompt's, an end mark), D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from tenuto.families.base import CHUNK
from tenuto.words import TenutoError


@dataclass(frozen=True)
class Words:
    """A tokenizer, and the token that fills the rest of a pass (OpenCLIP's encoders know 0, CLIP's the end mark)."""

    tokenizer: CLIPTokenizer
    pad: int

    def tokens(self, prompt: str) -> list[int]:
        """Without begin and end marks, however many there are."""
        return list(self.tokenizer(prompt, add_special_tokens=False, truncation=False, verbose=False)["input_ids"])

    def passes(self, prompt: str) -> int:
        return _passes(self.tokens(prompt))

    def table(self, prompts: Sequence[str], passes: int | None = None) -> Tensor:
        """[B P 77]; all prompts get as many passes as the longest needs, or as asked for."""
        tokens = [self.tokens(prompt) for prompt in prompts]
        needed = max(map(_passes, tokens))
        if passes is not None and needed > passes:
            raise ValueError(f"a prompt takes {needed} passes of text, only {passes} were asked for")
        start, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        parts = [[ids[at * CHUNK : (at + 1) * CHUNK] for at in range(passes or needed)] for ids in tokens]
        return torch.tensor([[[start, *part, end, *[self.pad] * (CHUNK - len(part))] for part in own] for own in parts])


def _passes(tokens: Sequence[int]) -> int:
    return max(1, -(-len(tokens) // CHUNK))


def load_words(folder: Path, pad: int | None = None) -> Words:
    """Refuses a folder without a vocabulary: the library would go on with an empty one. Raises what a damaged one makes
    the library raise when it is asked."""
    if not (folder / "tokenizer.json").is_file():
        for name in ("vocab.json", "merges.txt"):
            if not (folder / name).is_file():
                raise TenutoError(f"{folder}: {name} is missing; download the checkpoint again")
    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    words = Words(tokenizer, tokenizer.pad_token_id if pad is None else pad)
    words.table(["a word"])
    return words


def hidden(encoder: Any, tokens: Tensor, back: int) -> tuple[Tensor, Any]:
    """(what the layer `back` from the end makes of tokens [N 77], before the final norm [N 77 D]; the whole answer)."""
    answer = encoder(tokens, output_hidden_states=True)
    return answer.hidden_states[-back], answer
