"""What the models of the inventory have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """A frozen model that refuses unknown fields, so that a mistyped name is a finding."""

    model_config = ConfigDict(frozen=True, extra="forbid")
