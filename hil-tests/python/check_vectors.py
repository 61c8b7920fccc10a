#!/usr/bin/env python3
"""Checks the frozen vectors with none of the project's own code.

Every body against proto/schema/v1.cddl (pycddl) and through cbor2; every seal, signature, session id, token hash,
password, chain, bill, keypad token and one-time code computed again. Prints what it counted; exit code 1 if anything does not fit.

`--self-test` then damages the vectors in memory, one at a time, and expects every damage to be found.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import struct
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Callable

import cbor2
import pycddl
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

import tariff
import wire

PROTO = Path(__file__).resolve().parents[2] / "proto"
COSE_SIGN1_TAG = 18
EDDSA = -8
HEXADECIMAL = {
    "body", "frame", "secret", "sha256", "payload", "envelope", "chunk", "before", "before-sha256", "public-key", "seed", "key", "token", "hash",
    "id", "tariff", "tariff-hash", "previous", "record", "password", "page",
}
TOPIC = re.compile(r"dev/1/[a-z0-9-]{1,20}/(up|down)/[a-z]+|hf/1/[a-z0-9-]{1,20}/[a-z0-9-]{1,20}/[ud]/[a-z]+(/[1-3])?")
# Root, way and last level of a topic, and the rule of its body.
ROUTES = {
    **{("dev", "up", word): word for word in ("hello", "authorize", "redeemed", "started", "meter", "stop", "status", "update")},
    ("dev", "up", "answer"): "command-answer",
    **{("dev", "down", word): word for word in ("clock", "grant", "refusal", "receipt", "command", "offer", "piece")},
    ("hf", "u", "hello"): "link-hello",
    ("hf", "u", "ask"): "ask",
    ("hf", "u", "records"): "upload",
    ("hf", "u", "echo"): "echo",
    ("hf", "u", "telemetry"): "telemetry",
    ("hf", "u", "done"): "order-done",
    ("hf", "d", "welcome"): "welcome",
    ("hf", "d", "answer"): "answer",
    ("hf", "d", "receipt"): "ledger-receipt",
    ("hf", "d", "echo"): "echo",
    ("hf", "d", "artifact"): "artifact-part",
    ("hf", "d", "counter"): "counter-seen",
    ("hf", "d", "order"): "order",
    ("hf", "d", "trouble"): "trouble",
}


class Mismatch(Exception):
    """A vector that does not say what it must."""


class Vector:
    """One file: `key: value` lines; a key may repeat."""

    def __init__(self, name: str, lines: list[tuple[str, str]]) -> None:
        self.name = name
        self.lines = lines

    @classmethod
    def read(cls, path: Path) -> Vector:
        lines = []
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("#"):
                continue
            key, separator, value = line.partition(": ")
            if not separator:
                raise Mismatch(f"{path.name}: {line!r} is no `key: value`")
            lines.append((key, value))
        return cls(path.stem, lines)

    def all(self, key: str) -> list[str]:
        return [value for each, value in self.lines if each == key]

    def has(self, key: str) -> bool:
        return bool(self.all(key))

    def text(self, key: str) -> str:
        values = self.all(key)
        if len(values) != 1:
            raise Mismatch(f"{len(values)} lines `{key}`")
        return values[0]

    def bytes(self, key: str) -> bytes:
        return bytes.fromhex(self.text(key))

    def number(self, key: str) -> int:
        return int(self.text(key))


def same(what: str, computed: Any, frozen: Any) -> None:
    """Refuses a difference."""
    if computed != frozen:
        shown = [value.hex() if isinstance(value, bytes) else repr(value) for value in (computed, frozen)]
        raise Mismatch(f"{what}: computed {shown[0]}, frozen {shown[1]}")


# ------------------------------------------------------------------------------------------------------------- schema


class Schema:
    """The CDDL, by rule."""

    def __init__(self, text: str) -> None:
        # pycddl 0.6 has no ranges with negative ends; `check_signed` looks at them instead.
        self.text = re.sub(r"-\d+\.\.\d+", "int", text)
        self.rules: dict[str, pycddl.Schema] = {}

    def check(self, rule: str, encoded: bytes) -> None:
        """Refuses bytes that are not what the rule says."""
        if rule not in self.rules:
            self.rules[rule] = pycddl.Schema(f"start = {rule}\n{self.text}")
        try:
            self.rules[rule].validate_cbor(encoded)
        except Exception as error:
            raise Mismatch(f"not a {rule}: {str(error).splitlines()[0]}") from error


def check_signed(rule: str, value: Any) -> None:
    """The ranges that pycddl cannot check: every integer fits 64 bits, the offset of a clock is one of this planet."""
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**64:
        raise Mismatch(f"{value} is beyond 64 bits")
    for each in list(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()):
        check_signed("", each)
    if rule == "clock" and not -720 <= value[4] <= 840:
        raise Mismatch(f"an offset of {value[4]} minutes")


def check_body(schema: Schema, rule: str, body: bytes) -> Any:
    """Schema, keys in order, shortest form."""
    schema.check(rule, body)
    value = wire.parse(body)
    check_signed(rule, value)
    check_keys(rule, value)
    same("encoded again", cbor2.dumps(value), body)
    return value


def check_keys(where: str, value: Any) -> None:
    """The keys of every map are 0, 1, 2 ... in this order."""
    if isinstance(value, dict):
        if list(value) != list(range(len(value))):
            raise Mismatch(f"{where}: the keys are {list(value)}")
        for key, each in value.items():
            check_keys(f"{where}.{key}", each)
    elif isinstance(value, list):
        for each in value:
            check_keys(where, each)


# ------------------------------------------------------------------------------------------------------------ vectors


def check_message(schema: Schema, vector: Vector) -> None:
    body = vector.bytes("body")
    value = check_body(schema, vector.text("rule"), body)
    topic = vector.text("topic")
    root, *_, way, word = topic.split("/")
    if not TOPIC.fullmatch(topic):
        raise Mismatch(f"{topic} is no topic")
    same("rule", ROUTES.get((root, way, word)), vector.text("rule"))
    if topic.startswith("dev/"):
        named = wire.decode(word, body)
        same("encoded from its names", wire.encode(word, named), body)
        if word == "grant":
            same("tariff_hash", hashlib.sha256(wire.encode("tariff", named["tariff"])).digest(), named["tariff_hash"])
    if vector.text("rule") == "trouble":
        same("sha256", hashlib.sha256(body).digest(), vector.bytes("sha256"))
        return
    if vector.text("rule") == "upload":
        for record in value[2]:
            check_body(schema, "ledger-record", record)
    direction = vector.text("direction")
    same("direction", {"u": "up", "d": "down"}.get(way, way), direction)
    key = wire.seal_key(vector.bytes("secret"), direction)
    same("frame", wire.seal(key, topic, vector.number("counter"), body), vector.bytes("frame"))
    limit = wire.FRAME_BYTES_MAX if topic.startswith("dev/") else wire.LINK_FRAME_BYTES_MAX
    opened = wire.open_frame(key, topic, vector.bytes("frame"), vector.number("counter") - 1, limit)
    same("opened frame", opened, (vector.number("counter"), body))


def check_item(schema: Schema, vector: Vector) -> None:
    body = vector.bytes("body")
    check_body(schema, vector.text("rule"), body)
    same("sha256", hashlib.sha256(body).digest(), vector.bytes("sha256"))


def check_envelope(schema: Schema, vector: Vector) -> None:
    payload, kind = vector.bytes("payload"), vector.text("kind")
    if kind not in wire.ARTIFACT_WORDS:
        raise Mismatch(f"{kind} is no artifact")
    content = check_body(schema, vector.text("rule"), payload)
    schema.check("envelope", vector.bytes("envelope"))
    envelope = wire.parse(vector.bytes("envelope"))
    if not isinstance(envelope, cbor2.CBORTag) or envelope.tag != COSE_SIGN1_TAG:
        raise Mismatch("no COSE_Sign1")
    protected, unprotected, carried, signature = envelope.value
    schema.check("protected-header", protected)
    public = vector.bytes("public-key")
    same("protected header", wire.parse(protected), {1: EDDSA, 4: public[:8]})
    same("unprotected header", unprotected, {})
    same("payload", carried, payload)
    signed = wire.signed_bytes(kind, protected, payload)
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, signed)
    except InvalidSignature as error:
        raise Mismatch("the signature does not fit") from error
    issuer = Ed25519PrivateKey.from_private_bytes(vector.bytes("seed"))
    same("public key", issuer.public_key().public_bytes_raw(), public)
    same("signature", issuer.sign(signed), signature)
    same("envelope", cbor2.dumps(envelope), vector.bytes("envelope"))
    if vector.has("chunk"):
        chunk = vector.bytes("chunk")
        entries = check_body(schema, "list-chunk", chunk)
        same("chunks", [hashlib.sha256(chunk).digest()], content[4])
        same("count", len(entries), content[2])
        same("order", sorted(entry[0] for entry in entries), [entry[0] for entry in entries])
        check_whole_list(schema, vector, content, entries)


def check_whole_list(schema: Schema, vector: Vector, manifest: Any, entries: Any) -> None:
    """The trailer: what the entries, full or as changes to a list before, come to."""
    whole = {}
    same("is a full list", manifest[1] == 0, not vector.has("before"))
    if vector.has("before"):
        before = check_body(schema, "list-chunk", vector.bytes("before"))
        same("before-sha256", hashlib.sha256(vector.bytes("before")).digest(), vector.bytes("before-sha256"))
        whole = {entry[0]: entry for entry in before}
        same("removed are of the base", set(manifest[5]) - set(whole), set())
    same("order of the removed", sorted(set(manifest[5])), manifest[5])
    same("removed entries", [entry[0] for entry in entries if entry[0] in manifest[5]], [])
    for token in manifest[5]:
        del whole[token]
    whole.update({entry[0]: entry for entry in entries})
    rows = [
        entry[0] + struct.pack(">QQBBQqQB", *(int(entry.get(key, False)) for key in range(1, 9)))
        for _, entry in sorted(whole.items())
    ]
    same("total", len(rows), manifest[6])
    same("digest", hashlib.sha256(b"".join(rows)).digest(), manifest[7])


def check_session_id(_: Schema, vector: Vector) -> None:
    computed = wire.session_id(vector.text("device"), vector.number("boot"), vector.number("number"))
    same("id", computed, vector.bytes("id"))


def check_token_hash(_: Schema, vector: Vector) -> None:
    same("length of the key", len(vector.bytes("key")), 32)
    computed = wire.token_hash(vector.bytes("key"), vector.number("kind"), vector.bytes("token"))
    same("hash", computed, vector.bytes("hash"))


def check_password(_: Schema, vector: Vector) -> None:
    same("password", wire.password(vector.bytes("secret")), vector.text("password"))


def check_chain(schema: Schema, vector: Vector) -> None:
    check_body(schema, "ledger-record", vector.bytes("record"))
    same("hash", wire.chain(vector.bytes("previous"), vector.bytes("record")), vector.bytes("hash"))


def check_keypad(_: Schema, vector: Vector) -> None:
    counter = vector.number("counter")
    computed = wire.keypad_digits(vector.bytes("secret"), counter, vector.number("amount"))
    same("digits", computed, vector.text("digits"))
    same("instrument", wire.keypad_number(vector.text("device"), counter), vector.number("instrument"))


def check_one_time_code(_: Schema, vector: Vector) -> None:
    same("length of the key", len(vector.bytes("key")), 32)
    same("digits", wire.one_time_code(vector.bytes("key"), vector.number("wall-s")), vector.text("digits"))


def check_bill(schema: Schema, vector: Vector) -> None:
    body = vector.bytes("tariff")
    check_body(schema, "tariff", body)
    same("tariff-hash", hashlib.sha256(body).digest(), vector.bytes("tariff-hash"))
    prices = wire.decode("tariff", body)
    quantities = [0] * tariff.ELEMENTS_MAX
    for line in vector.all("slice"):
        *numbers, second = line.split()
        usage = tariff.Usage(*map(int, numbers), second_of_day=None if second == "-" else int(second))
        tariff.add(quantities, prices, vector.number("register"), usage)
    same("quantities", quantities, [int(quantity) for quantity in vector.text("quantities").split()])
    same("total", tariff.total(quantities, prices), vector.number("total"))


def check_identity(schema: Schema, vector: Vector) -> None:
    body = vector.bytes("body")
    check_body(schema, vector.text("rule"), body)
    framed = b"HFID\x01\x00" + struct.pack("<H", len(body)) + body
    same("page", framed + hashlib.sha256(framed).digest()[:8], vector.bytes("page"))


CHECKS: dict[str, Callable[[Schema, Vector], None]] = {
    "message": check_message,
    "item": check_item,
    "envelope": check_envelope,
    "session-id": check_session_id,
    "token-hash": check_token_hash,
    "password": check_password,
    "chain": check_chain,
    "keypad": check_keypad,
    "one-time-code": check_one_time_code,
    "bill": check_bill,
    "identity": check_identity,
}


def check(schema: Schema, vector: Vector) -> None:
    """Refuses a vector that does not fit."""
    what = vector.text("what")
    if what not in CHECKS:
        raise Mismatch(f"nobody knows what {what!r} is")
    try:
        CHECKS[what](schema, vector)
    except (wire.Refused, struct.error, ValueError, KeyError, TypeError, IndexError) as error:
        raise Mismatch(f"{type(error).__name__}: {error}") from error


# ---------------------------------------------------------------------------------------------------------- self-test


def damaged(vector: Vector) -> list[tuple[str, Vector]]:
    """The vector with one damage each: a flipped bit in every hexadecimal value, a changed number or word."""
    damages = []
    for position, (key, value) in enumerate(vector.lines):
        if key in HEXADECIMAL and value:
            raw = bytearray.fromhex(value)
            for at in {0, len(raw) // 2, len(raw) - 1}:
                flipped = bytearray(raw)
                flipped[at] ^= 1
                damages.append((f"{key} byte {at}", position, flipped.hex()))
            damages.append((f"{key} cut", position, value[:-2]))
            damages.append((f"{key} longer", position, value + "00"))
        elif key in ("counter", "boot", "number", "total", "kind", "amount", "instrument") and value.isdigit():
            damages.append((key, position, str(int(value) + 1)))
        elif key == "kind":
            damages.append((key, position, "other"))
        elif key in ("topic", "device"):
            damages.append((key, position, value[:-1] + ("a" if value[-1] != "a" else "b")))
        elif key == "direction":
            damages.append((key, position, "down" if value == "up" else "up"))
        elif key in ("digits", "wall-s"):
            # A second is not always another step; a minute is.
            damages.append((key, position, str(int(value) + 60).zfill(len(value))))
        elif key == "quantities":
            damages.append((key, position, "1" + value))
        elif key == "rule":
            damages.append((key, position, "echo" if value != "echo" else "ask"))
        elif key == "what":
            damages.append((key, position, "nothing"))
    lines = vector.lines
    return [
        (what, Vector(vector.name, [*lines[:position], (lines[position][0], value), *lines[position + 1 :]]))
        for what, position, value in damages
    ]


def misshapen(body: bytes) -> list[bytes]:
    """A struct without each of its fields, with each of another type, and with one too many."""
    value = wire.parse(body)
    if not isinstance(value, dict):
        return []
    shapes = [{key: each for key, each in value.items() if key != missing} for missing in value]
    shapes += [{**value, changed: 1.5} for changed in value]
    shapes.append({**value, len(value): 0})
    shapes.append({**value, "name": 0})
    return [cbor2.dumps(shape) for shape in shapes]


def self_test(schema: Schema, vectors: list[Vector]) -> list[str]:
    """What was damaged and not noticed."""
    missed = []
    tried = 0
    for vector in vectors:
        for what, bad in damaged(vector):
            tried += 1
            try:
                check(schema, bad)
            except Mismatch:
                continue
            missed.append(f"{vector.name}: {what} was damaged, and nothing was noticed")
        if not vector.has("body"):
            continue
        for shape in misshapen(vector.bytes("body")):
            tried += 1
            try:
                schema.check(vector.text("rule"), shape)
            except Mismatch:
                continue
            missed.append(f"{vector.name}: the schema takes {shape.hex()}")
    print(f"self-test: {tried} damages, {tried - len(missed)} noticed")
    if tried < 1_000:
        missed.append(f"only {tried} damages were tried")
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schema", type=Path, default=PROTO / "schema/v1.cddl")
    parser.add_argument("--vectors", type=Path, default=PROTO / "vectors/v1")
    parser.add_argument("--self-test", action="store_true", help="damage vectors in memory; every damage must be noticed")
    arguments = parser.parse_args()

    schema = Schema(arguments.schema.read_text(encoding="utf-8"))
    vectors, faults, counts = [], [], Counter()
    for path in sorted(arguments.vectors.glob("*.hex")):
        try:
            vector = Vector.read(path)
            vectors.append(vector)
            check(schema, vector)
            counts[vector.text("what")] += 1
        except Mismatch as error:
            faults.append(f"{path.stem}: {error}")
    print(", ".join(f"{count} {what}" for what, count in sorted(counts.items())) or "nothing")
    unheard = set(ROUTES.values()) - {vector.text("rule") for vector in vectors if vector.has("topic")}
    if unheard:
        faults.append(f"no vector of: {', '.join(sorted(unheard))}")
    missing = set(CHECKS) - set(counts)
    if missing:
        faults.append(f"no good vector of: {', '.join(sorted(missing))}")
    if arguments.self_test:
        faults += self_test(schema, vectors)
    for fault in faults:
        print(f"FAULT {fault}", file=sys.stderr)
    print(f"{len(vectors)} vectors, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
