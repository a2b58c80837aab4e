"""The second LoRA that the demo's comparison combines with."""

from __future__ import annotations

from tenuto.adapters.files import read_lora
from tenuto.adapters.onto import check_file
from tenuto.cli.demo import SECOND, SECOND_LORA
from tenuto.families.checkpoints import open_base
from tenuto.pocket.concepts import CONCEPTS


def test_it_was_trained_on_the_checkpoint_that_ships_and_fits_it() -> None:
    base, file = open_base("pocket", device="cpu"), read_lora(SECOND_LORA)
    assert file.metadata["tenuto_base_hash"] == base.hash
    assert file.metadata["tenuto_triggers"] == CONCEPTS[SECOND].trigger
    assert len(check_file(base, file)[1]) > 50
