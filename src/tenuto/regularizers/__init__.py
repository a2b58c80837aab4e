"""One file per method that keeps the adapter close to the prior; `catalogue.py` lists them."""
