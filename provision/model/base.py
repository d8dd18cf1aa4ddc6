"""What the models of the inventory have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """Frozen, and strict about names: an unknown field is a finding, not a surprise."""

    model_config = ConfigDict(frozen=True, extra="forbid")
