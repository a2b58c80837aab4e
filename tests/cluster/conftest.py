"""Ray reads its environment once, when it is first imported: the token must be there before any test of the room is."""

from __future__ import annotations

import os

from tests.cluster.machines import TOKEN

os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
