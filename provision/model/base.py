"""What the models of the inventory have in common."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError


class Model(BaseModel):
    """A frozen model that refuses unknown fields, so that a mistyped name is a finding."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _text(value: object) -> object:
    if isinstance(value, (str, IPv4Network)):
        return value
    raise PydanticCustomError("ip_v4_network", "Input is not a valid IPv4 network")


# IPv4Network takes pairs too, and then fails in ways that are no ValueError.
Network = Annotated[IPv4Network, BeforeValidator(_text)]
