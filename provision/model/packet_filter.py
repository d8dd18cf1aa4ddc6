"""The rules of a machine's own packet filter, as values. No I/O; `provision.observe` makes them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Command(Enum):
    """The program that shows and changes the rules."""

    IPTABLES = "iptables"
    LEGACY = "iptables-legacy"
    NFT = "nft"


class Hook(Enum):
    INPUT = "input"
    FORWARD = "forward"


class Field(Enum):
    """What a rule compares. UNKNOWN: this program does not know whether it matches."""

    SOURCE = "source"
    DESTINATION = "destination"
    PROTOCOL = "protocol"
    PORT = "port"
    INPUT = "input interface"
    OUTPUT = "output interface"
    STATE = "connection state"
    NEVER = "never"
    UNKNOWN = "unknown"


class Action(Enum):
    ACCEPT = "accept"
    DROP = "drop"
    JUMP = "jump"
    GOTO = "goto"
    RETURN = "return"
    CONTINUE = "continue"


@dataclass(frozen=True)
class Match:
    field: Field
    values: tuple[str, ...] = ()
    negated: bool = False


@dataclass(frozen=True)
class Rule:
    """A rule: its conditions, what it does, the chain that it jumps to, and its text."""

    matches: tuple[Match, ...]
    action: Action
    target: str = ""
    text: str = ""


@dataclass(frozen=True)
class Chain:
    """A chain.

    Attributes:
        table: `filter` for iptables, `inet filter` for nft.
        hook: None: other chains jump to it.
        drops: whether its policy is to drop.
    """

    command: Command
    table: str
    name: str
    hook: Hook | None
    drops: bool
    rules: tuple[Rule, ...] = ()
