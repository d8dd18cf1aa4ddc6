"""The output of iptables-save and of `nft list ruleset` -> chains. Pure.

A condition that is not known here becomes `Field.UNKNOWN`; nothing raises.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator

from provision.model.packet_filter import Action, Chain, Command, Field, Hook, Match, Rule

_UNKNOWN = Match(Field.UNKNOWN)
_HOOKS = {"INPUT": Hook.INPUT, "FORWARD": Hook.FORWARD}
_TARGETS = {
    "ACCEPT": Action.ACCEPT,
    "DROP": Action.DROP,
    "REJECT": Action.DROP,
    "RETURN": Action.RETURN,
}
# Targets that pass the packet on to the next rule.
_PASSING = {"LOG", "NFLOG", "MARK", "CONNMARK", "TCPMSS", "AUDIT"}
_OPTIONS = {
    "-s": Field.SOURCE,
    "-d": Field.DESTINATION,
    "-p": Field.PROTOCOL,
    "-i": Field.INPUT,
    "-o": Field.OUTPUT,
    "--dport": Field.PORT,
    "--dports": Field.PORT,
    "--state": Field.STATE,
    "--ctstate": Field.STATE,
}


def iptables(lines: Iterable[str], command: Command) -> tuple[Chain, ...]:
    """Read the table `filter` of iptables-save."""
    policies: dict[str, str] = {}
    rules: dict[str, list[Rule]] = {}
    for line in lines:
        if line.startswith(":"):
            name, policy, *_ = *line[1:].split(), ""
            policies[name] = policy
        elif line.startswith("-A "):
            try:
                _, name, *words = shlex.split(line)
            except ValueError:
                continue
            rules.setdefault(name, []).append(_iptables_rule(words, line))
    return tuple(
        Chain(
            command,
            "filter",
            name,
            _HOOKS.get(name) if policy != "-" else None,
            policy == "DROP",
            tuple(rules.get(name, ())),
        )
        for name, policy in policies.items()
    )


def _iptables_rule(words: list[str], text: str) -> Rule:
    matches: list[Match] = []
    action, target, negated = Action.CONTINUE, "", False
    rest = iter(words)
    for word in rest:
        if word == "!":
            negated = True
            continue
        if word in {"-j", "-g"}:
            target = next(rest, "")
            action = _TARGETS.get(target, Action.JUMP if word == "-j" else Action.GOTO)
            if target in _PASSING:
                action = Action.CONTINUE
            # The rest are the target's own options.
            break
        if word in {"-m", "--comment"}:
            next(rest, "")
        elif word in _OPTIONS:
            values = next(rest, "").replace(":", "-").split(",")
            matches.append(Match(_OPTIONS[word], tuple(v.lower() for v in values), negated))
        else:
            matches.append(_UNKNOWN)
        negated = False
    return Rule(tuple(matches), action, target, text)


def nft(lines: Iterable[str], skip: frozenset[str]) -> tuple[Chain, ...]:
    """Read `nft list ruleset`, except the tables of these names (`ip filter`)."""
    chains = []
    table = ""
    statements = _statements(lines)
    for line in statements:
        if found := re.fullmatch(r"table (\S+ \S+) \{", line):
            table = found[1]
        elif found := re.fullmatch(r"chain (\S+) \{", line):
            body = list(iter(lambda: next(statements, "}"), "}"))
            if table not in skip and table.split()[0] in {"ip", "inet"}:
                chains.append(_nft_chain(table, found[1], body))
        elif line.endswith("{"):
            depth = 1
            while depth:
                inner = next(statements, None)
                depth = 0 if inner is None else depth + inner.count("{") - inner.count("}")
    return tuple(chains)


def _statements(lines: Iterable[str]) -> Iterator[str]:
    """The lines; a rule whose set spans lines is one line."""
    joined = ""
    for raw in lines:
        joined = f"{joined} {raw.strip()}".strip()
        begins_block = joined.endswith("{") and re.match(
            r"(table|chain|set|map|flowtable|counter|quota|limit|ct|secmark|synproxy) \S+", joined
        )
        braces = re.sub(r'"[^"]*"', "", joined)
        if begins_block and braces.count("{") == 1:
            yield joined
        elif braces.count("{") > braces.count("}"):
            continue
        elif joined:
            yield joined
        joined = ""
    if joined:
        yield joined


def _nft_chain(table: str, name: str, body: list[str]) -> Chain:
    hook, drops, rules = None, False, []
    for line in body:
        if found := re.match(r"type (\S+) hook (\S+)", line):
            hooks = {"input": Hook.INPUT, "forward": Hook.FORWARD}
            hook = hooks.get(found[2]) if found[1] == "filter" else None
            drops = "policy drop" in line
        else:
            rules.append(_nft_rule(line))
    return Chain(Command.NFT, table, name, hook, drops, tuple(rules))


_NOISE = re.compile(
    r'counter (?:packets \d+ bytes \d+)?|log(?: (?:prefix "[^"]*"|level \S+|flags \S+|group \d+))*'
    r'|comment "[^"]*"|# .*$'
)
_VERDICT = re.compile(r"(?:^| )(accept|drop|return|reject(?: with .*)?|(jump|goto) (\S+))$")
_VALUE = r"(?P<not>!= )?(?P<value>\{[^}]*\}|\S+)"
_NFT_FIELDS = (
    (re.compile(rf"\bip saddr {_VALUE}"), Field.SOURCE),
    (re.compile(rf"\bip daddr {_VALUE}"), Field.DESTINATION),
    (re.compile(rf"\b(?:meta l4proto|ip protocol) {_VALUE}"), Field.PROTOCOL),
    (re.compile(rf"\b(?P<protocol>tcp|udp) dport {_VALUE}"), Field.PORT),
    (re.compile(rf"\b(?:meta )?(?:iif|iifname) {_VALUE}"), Field.INPUT),
    (re.compile(rf"\b(?:meta )?(?:oif|oifname) {_VALUE}"), Field.OUTPUT),
    (re.compile(r"\bct state (?P<not>!= )?(?P<value>\{[^}]*\}|\S+)"), Field.STATE),
)
_OTHER_PROTOCOL = re.compile(r"\b(?:ip6|icmpv6|icmp) \S+|\bmeta nfproto (?:ipv6)")


def _nft_rule(line: str) -> Rule:
    rest = _NOISE.sub(" ", line).strip()
    rest = re.sub(r"\s+", " ", rest)
    action, target = Action.CONTINUE, ""
    if " vmap " in rest:
        # A map from values to verdicts: only the states' map is known.
        states = re.fullmatch(r"ct state vmap \{([^}]*)\}", rest)
        known = states is not None and "new" not in states[1] and "jump" not in states[1]
        return Rule((Match(Field.NEVER) if known else _UNKNOWN,), Action.ACCEPT, "", line)
    if found := _VERDICT.search(rest):
        rest = rest[: found.start()].strip()
        if found[2]:
            action, target = Action(found[2]), found[3]
        else:
            action = Action.DROP if found[1].startswith("reject") else Action(found[1])
    matches: list[Match] = []
    if _OTHER_PROTOCOL.search(rest):
        return Rule((Match(Field.NEVER),), action, target, line)
    rest = rest.replace("meta nfproto ipv4", "")
    for pattern, field in _NFT_FIELDS:
        while found := pattern.search(rest):
            groups = found.groupdict()
            values = [v.strip().strip('"') for v in groups["value"].strip("{}").split(",")]
            if protocol := groups.get("protocol"):
                matches.append(Match(Field.PROTOCOL, (protocol,)))
            if any(v.startswith("@") for v in values):
                matches.append(_UNKNOWN)
            else:
                matches.append(Match(field, tuple(values), bool(groups["not"])))
            rest = rest[: found.start()] + rest[found.end() :]
    if rest.strip():
        matches.append(_UNKNOWN)
    return Rule(tuple(matches), action, target, line)
