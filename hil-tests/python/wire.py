"""The wire of version 1, written from proto/schema/v1.cddl and proto/README.md alone.

Structs are dicts by field name here and CBOR maps by field position on the wire. Needs cbor2; the rest is Python's own.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import struct
from typing import Any

import cbor2

VERSION = 1
HEADER_BYTES = 9
TAG_BYTES = 16
OVERHEAD_BYTES = HEADER_BYTES + TAG_BYTES
FRAME_BYTES_MAX = 793
LINK_FRAME_BYTES_MAX = 65536

STAMP = ("mono_ms", "wall_s", "quality")
ID_TOKEN = ("kind", "bytes")
PRICE_ELEMENT = ("dimension", "price_milli", "minute_from", "minute_to", "power_w_min", "power_w_max")
TARIFF = ("id", "start_fee", "minimum", "cap", ("elements", [PRICE_ELEMENT]))

# Fields in wire order; a pair is a field that is a struct (or, in a list, an array of structs).
STRUCTS: dict[str, tuple] = {
    "hello": ("version_min", "version_max", "kind", "outlets", "boot", "down_counter", "firmware", ("at", STAMP)),
    "authorize": ("session", "outlet", ("token", ID_TOKEN), "units_wished", "register", ("at", STAMP), "instrument"),
    "redeemed": (
        "session", "outlet", ("token", ID_TOKEN), "instrument", "number", "units_max", "money_max", "duration_max_s",
        "meter_every_s", ("tariff", TARIFF), "register", ("at", STAMP),
    ),
    "started": ("session", "outlet", "register_start", "proof", ("at", STAMP)),
    "meter": ("session", "outlet", "register_start", "register", "power_w", "elapsed_s", "idle_s", ("at", STAMP)),
    "stop": (
        "session", "outlet", "reason", "started", "register_start", "register_end", "elapsed_s", "idle_s", "shown",
        ("at", STAMP),
    ),
    "status": ("outlet", "state", "fault", "register", ("at", STAMP)),
    "answer": ("id", "outcome", ("at", STAMP)),
    "clock": ("version", "boot", "wall_s", "quality", "offset_min"),
    "grant": (
        "session", "units_max", "money_max", "duration_max_s", "start_within_s", "meter_every_s", ("tariff", TARIFF),
        "tariff_hash", "decision", "stop_tokens",
    ),
    "refusal": ("session", "reason", "retry_after_s"),
    "receipt": ("session", "closing", "amount", "units"),
    "command": ("id", "verb", "outlet", "session", "not_after_s", ("token", ID_TOKEN), "units"),
    "update": ("version", "floor", "state", "offered", "fault", "offset", ("at", STAMP)),
    "offer": ("manifest",),
    "piece": ("version", "offset", "bytes"),
    "tariff": TARIFF,
}

KIND = {"charger": 0, "washer": 1, "dispenser": 2}
TOKEN_KIND = {"card": 0, "app": 1, "pin": 2, "voucher": 3, "keypad": 4}
QUALITY = {"unknown": 0, "informative": 1, "synchronised": 2, "relative": 3}
START_PROOF = {"charger": 1, "washer": 2, "dispenser": 3}
STOP_REASON = {"user": 1, "limit": 2, "finished": 3, "remote": 7, "not_started": 8, "abandoned": 9}
OUTLET_STATE = {"free": 1, "preparing": 2, "busy": 3}
FAULT_NONE = 1
VERB = {"stop": 1, "report": 2, "start": 3, "hello": 4, "limit": 5}
OUTCOME = {"done": 1, "repeated": 2, "stale": 3, "unsupported": 4, "not_applicable": 5}
CLOSING = {1: "captured", 2: "voided", 3: "unknown"}
REFUSAL_REASON = {
    0: "other", 1: "device_state", 2: "revoked", 3: "rate", 4: "replay", 5: "concurrent", 6: "online_required",
    7: "unknown", 8: "denied", 9: "invalid", 10: "no_credit", 11: "list_expired", 12: "no_tariff", 13: "version",
    14: "storage", 15: "reserved", 20: "forged", 21: "elsewhere", 22: "expired", 23: "locked_out", 24: "clock",
}
ARTIFACT_WORDS = ("other", "list", "revocations", "tariffs", "policy", "lease", "voucher", "firmware", "keys")


class Refused(Exception):
    """Bytes that are not what they should be. `replay`: sealed well, but seen before."""

    def __init__(self, why: str, replay: bool = False) -> None:
        super().__init__(why)
        self.replay = replay


# ------------------------------------------------------------------------------------------------------------- bodies


def encode(name: str, value: dict[str, Any]) -> bytes:
    """A struct as the wire has it."""
    return cbor2.dumps(_packed(STRUCTS[name], value))


def _packed(fields: tuple, value: dict[str, Any]) -> dict[int, Any]:
    packed = {}
    for position, field in enumerate(fields):
        name, inner = field if isinstance(field, tuple) else (field, None)
        item = value[name]
        if isinstance(inner, list):
            item = [_packed(inner[0], each) for each in item]
        elif inner is not None and item is not None:
            item = _packed(inner, item)
        packed[position] = item
    return packed


def decode(name: str, body: bytes) -> dict[str, Any]:
    """A struct by its field names. Fields that are not known are left out; a missing one is refused."""
    return _named(name, STRUCTS[name], parse(body))


def parse(body: bytes) -> Any:
    """One CBOR item, and nothing behind it."""
    stream = io.BytesIO(body)
    try:
        value = cbor2.load(stream)
    except Exception as error:
        raise Refused(f"not CBOR: {error}") from error
    if stream.tell() != len(body):
        raise Refused(f"{len(body) - stream.tell()} bytes behind the body")
    return value


def _named(name: str, fields: tuple, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refused(f"{name} is not a map")
    named = {}
    for position, field in enumerate(fields):
        field_name, inner = field if isinstance(field, tuple) else (field, None)
        if position not in value:
            raise Refused(f"{name} has no {field_name}")
        item = value[position]
        if isinstance(inner, list):
            item = [_named(f"{name}.{field_name}", inner[0], each) for each in item]
        elif inner is not None and item is not None:
            item = _named(f"{name}.{field_name}", inner, item)
        named[field_name] = item
    return named


# -------------------------------------------------------------------------------------------------------------- seals


def hkdf(secret: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA256 (RFC 5869) without salt; one block is enough here."""
    extracted = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")[:length]


def seal_key(secret: bytes, direction: str) -> bytes:
    """The key of one direction, `up` or `down`."""
    return hkdf(secret, f"holdfast seal 1 {direction}".encode(), 32)


def password(secret: bytes) -> str:
    """The MQTT password of a pair."""
    return hkdf(secret, b"holdfast mqtt password 1", 16).hex()


def _tag(key: bytes, topic: str, header_and_body: bytes) -> bytes:
    name = topic.encode()
    label = b"holdfast seal 1" + struct.pack(">H", len(name)) + name
    return hmac.digest(key, label + header_and_body, "sha256")[:TAG_BYTES]


def seal(key: bytes, topic: str, counter: int, body: bytes) -> bytes:
    """A frame."""
    frame = struct.pack(">BQ", VERSION, counter) + body
    return frame + _tag(key, topic, frame)


def open_frame(key: bytes, topic: str, frame: bytes, last: int, bytes_max: int = FRAME_BYTES_MAX) -> tuple[int, bytes]:
    """Counter and body, if the seal fits and the counter is above `last`."""
    if len(frame) > bytes_max:
        raise Refused(f"a frame of {len(frame)} bytes is longer than {bytes_max}")
    if frame and frame[0] != VERSION:
        raise Refused(f"frame version {frame[0]}, this side speaks {VERSION}")
    if len(frame) < OVERHEAD_BYTES:
        raise Refused(f"a frame of {len(frame)} bytes is shorter than a seal")
    signed, tag = frame[:-TAG_BYTES], frame[-TAG_BYTES:]
    if not hmac.compare_digest(tag, _tag(key, topic, signed)):
        raise Refused("the seal does not fit: another key, another topic or changed bytes")
    (counter,) = struct.unpack(">Q", signed[1:HEADER_BYTES])
    if counter <= last:
        raise Refused(f"counter {counter} is not above {last}: a replay", replay=True)
    return counter, signed[HEADER_BYTES:]


# -------------------------------------------------------------------------------------------------------- derivations


def session_id(device: str, boot: int, number: int) -> bytes:
    """What the device mints."""
    return hashlib.sha256(device.encode()).digest()[:8] + struct.pack(">II", boot, number)


def token_hash(key: bytes, kind: int, token: bytes) -> bytes:
    """An id token under the site's key."""
    return hmac.digest(key, bytes([kind]) + token, "sha256")[:16]


def chain(previous: bytes, record: bytes) -> bytes:
    """The next link of the chain over uploaded records."""
    return hashlib.sha256(previous + record).digest()


def signed_bytes(kind: str, protected: bytes, payload: bytes) -> bytes:
    """What an envelope's signature covers (RFC 9052, section 4.4)."""
    return cbor2.dumps(["Signature1", protected, b"holdfast/1/" + kind.encode(), payload])


# -------------------------------------------------------------------------------------------------------- instruments

KEYPAD_AMOUNTS = (50, 100, 200, 300, 400, 500, 600, 800, 1000, 1500, 2000, 3000, 4000, 5000, 7500, 10000)
KEYPAD_MACS = 10**12 // (128 * 16)


def keypad_digits(secret: bytes, counter: int, amount: int) -> str:
    """The 12 digits of a keypad token of the device with this secret."""
    key = hkdf(secret, b"holdfast keypad key 1", 32)
    amount_class = KEYPAD_AMOUNTS.index(amount)
    digest = hmac.digest(key, b"holdfast keypad 1" + struct.pack(">IB", counter, amount_class), "sha256")
    mac = int.from_bytes(digest[:8], "big") % KEYPAD_MACS
    return f"{(mac * 128 + counter % 128) * 16 + amount_class:012}"


def keypad_number(device: str, counter: int) -> int:
    """The number of a keypad token among all instruments."""
    head = int.from_bytes(hashlib.sha256(device.encode()).digest()[:4], "big") >> 1
    return 1 << 63 | head << 32 | counter


def one_time_code(key: bytes, wall_s: int) -> str:
    """RFC 6238 with HMAC-SHA256, 8 digits, steps of 30 s."""
    digest = hmac.digest(key, struct.pack(">Q", wall_s // 30), "sha256")
    offset = digest[31] & 0x0F
    return f"{(int.from_bytes(digest[offset:offset + 4], 'big') & 0x7FFFFFFF) % 10**8:08}"
