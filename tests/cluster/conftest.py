"""Ray reads its environment once, when it is first imported: what the room sets must be there before any test of it
is, and the token."""

from __future__ import annotations

import os

from tenuto.cluster.connection import QUIET
from tests.cluster.machines import TOKEN

os.environ |= QUIET | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
