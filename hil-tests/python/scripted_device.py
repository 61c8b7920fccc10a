#!/usr/bin/env python3
"""A device for support people: one session, step by step, against a running gateway.

    hello -> clock, authorize -> grant, started, meter ..., stop -> receipt

Written from proto/schema/v1.cddl and proto/README.md alone. Exit code 0 only if the session completed (or, with
--refuse-expected, was refused), every seal fitted and the receipt charges no more than was shown; 1 otherwise.

It speaks in the place of the device whose name and secret it is given. Its boot number is the time of day in seconds
since 1970, unless --boot says otherwise: the gateway will not hear a real device of that name again until that device's
own boot number is higher. Use a device that is registered for this purpose.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
import time
from typing import Any, Callable

import tariff
import wire
from link import Failed, Link, Told

# What is drawn if nobody says: half a kilowatt-hour, a wash, a glass.
UNITS = {"charger": 500, "washer": 1, "dispenser": 330}
POWER_W = {"charger": 7_000, "washer": 1_800, "dispenser": 60}
OUTLETS_MAX = 20


class Device(Link):
    """The outlet."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.last_command = 0
        self.stop_wanted = False
        self.state = "free"
        self.register = options.register

    def authorize(self, session: bytes) -> Told:
        """The grant or refusal."""

        def value() -> dict[str, Any]:
            token = {"kind": wire.TOKEN_KIND[self.options.token_kind], "bytes": self.options.token}
            return {
                "session": session,
                "outlet": self.options.outlet,
                "token": token,
                "units_wished": 0,
                "register": self.register,
                "at": self.at(),
                "instrument": b"",
            }

        def answers(told: Told) -> bool:
            return told.word in ("grant", "refusal", "receipt") and told.value["session"] == session

        told = self.ask("authorize", value, answers)
        if told.word == "receipt":
            raise Failed("this session was closed before; is the boot number an old one?")
        return told

    def deliver(self, session: bytes, grant: dict[str, Any]) -> dict[str, Any]:
        """Started, meters and the fields of the stop."""
        options, prices = self.options, grant["tariff"]
        start = self.register
        where = {"session": session, "outlet": options.outlet, "register_start": start}
        start_s, checkpoint_s = time.monotonic(), 0
        quantities = [0] * tariff.ELEMENTS_MAX
        second = self.second_of_day()
        self.state = "busy"
        self.send("started", {**where, "proof": wire.START_PROOF[options.kind], "at": self.at()})
        reason = "finished"
        money = tariff.total(quantities, prices)
        meters = max(options.meters, math.ceil(options.seconds / max(1, grant["meter_every_s"])))
        for step in range(1, meters + 1):
            self.pause(start_s + options.seconds * step / meters)
            elapsed_s = int(time.monotonic() - start_s)
            register = start + min(options.units * step // meters, grant["units_max"])
            usage = tariff.Usage(
                register - self.register, elapsed_s - checkpoint_s, 0, POWER_W[options.kind], second
            )
            after = quantities.copy()
            tariff.add(after, prices, tariff.REGISTER[options.kind], usage)
            if tariff.total(after, prices) > grant["money_max"]:
                reason = "limit"
                break
            quantities, checkpoint_s, second, self.register = after, elapsed_s, self.second_of_day(), register
            money = tariff.total(quantities, prices)
            meter = {"register": register, "power_w": POWER_W[options.kind], "elapsed_s": elapsed_s, "idle_s": 0}
            self.send("meter", {**where, **meter, "at": self.at()})
            if self.stop_wanted:
                reason = "remote"
                break
            if register - start >= grant["units_max"] or elapsed_s >= grant["duration_max_s"]:
                reason = "limit"
                break
        return {
            **where,
            "reason": wire.STOP_REASON[reason],
            "started": True,
            "register_end": self.register,
            "elapsed_s": checkpoint_s,
            "idle_s": 0,
            "shown": min(money, grant["money_max"]),
        }

    def pause(self, until_s: float) -> None:
        """Delivers and listens."""
        while self.hear(until_s) is not None:
            pass

    def stop(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The receipt. The stop is said again until it is there, each time with the same facts."""
        told = self.ask(
            "stop",
            lambda: {**fields, "at": self.at()},
            lambda told: told.word == "receipt" and told.value["session"] == fields["session"],
        )
        return told.value

    def command(self, command: dict[str, Any]) -> None:
        outcome = "unsupported"
        if command["id"] <= self.last_command:
            outcome = "repeated"
        elif command["verb"] == wire.VERB["stop"]:
            self.stop_wanted, outcome = True, "done"
        elif command["verb"] == wire.VERB["report"]:
            self.status(self.state)
            outcome = "done"
        self.last_command = max(self.last_command, command["id"])
        self.send("answer", {"id": command["id"], "outcome": wire.OUTCOME[outcome], "at": self.at()})

    def status(self, state: str) -> None:
        self.state = state
        self.send(
            "status",
            {
                "outlet": self.options.outlet,
                "state": wire.OUTLET_STATE[state],
                "fault": wire.FAULT_NONE,
                "register": self.register,
                "at": self.at(),
            },
        )


# --------------------------------------------------------------------------------------------------------------- story


def run(device: Device) -> str:
    """One session; what it came to."""
    options = device.options
    device.connect()
    device.hello()
    device.status("free")
    session = wire.session_id(options.device, options.boot, 1)
    told = device.authorize(session)
    if told.word == "refusal":
        reason = wire.REFUSAL_REASON.get(told.value["reason"], "other")
        if options.refuse_expected and options.reason in (None, reason):
            return f"refused as expected: {reason}"
        raise Failed(f"refused: {reason}")
    grant = told.value
    if options.refuse_expected:
        abandon(device, session)
        raise Failed("granted, but a refusal was expected")
    encoded = wire.encode("tariff", grant["tariff"])
    if hashlib.sha256(encoded).digest() != grant["tariff_hash"]:
        abandon(device, session)
        raise Failed("the tariff does not have the hash of the grant: not this price, or fields this device cannot bill")
    fields = device.deliver(session, grant)
    receipt = device.stop(fields)
    device.status("free")
    return check_receipt(fields, receipt)


def abandon(device: Device, session: bytes) -> None:
    """Closes a session that never started, so that its hold is released."""
    device.stop(
        {
            "session": session,
            "outlet": device.options.outlet,
            "reason": wire.STOP_REASON["not_started"],
            "started": False,
            "register_start": device.register,
            "register_end": device.register,
            "elapsed_s": 0,
            "idle_s": 0,
            "shown": 0,
        }
    )


def check_receipt(stop: dict[str, Any], receipt: dict[str, Any]) -> str:
    closing = wire.CLOSING.get(receipt["closing"], "other")
    delivered = stop["register_end"] - stop["register_start"]
    if closing != "captured":
        raise Failed(f"the session was closed as {closing}")
    if receipt["amount"] > stop["shown"]:
        raise Failed(f"{receipt['amount']} are charged, {stop['shown']} were shown")
    if receipt["units"] > delivered:
        raise Failed(f"{receipt['units']} units are charged, {delivered} were delivered")
    note = "" if receipt["amount"] == stop["shown"] else f" ({stop['shown']} were shown)"
    return f"completed: {receipt['units']} units, {receipt['amount']} minor units{note}"


def options_of(arguments: list[str]) -> argparse.Namespace:
    def bytes_of(least: int, most: int) -> Callable[[str], bytes]:
        def parse(text: str) -> bytes:
            raw = bytes.fromhex(text)
            if not least <= len(raw) <= most:
                raise ValueError
            return raw

        parse.__name__ = f"hexadecimal text of {least} to {most} bytes"
        return parse

    def within(kind: type, least: float, most: float) -> Callable[[str], Any]:
        def parse(text: str) -> Any:
            number = kind(text)
            if not least <= number <= most:
                raise ValueError
            return number

        parse.__name__ = f"number from {least} to {most}"
        return parse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=within(int, 1, 65_535), default=1883)
    add("--mqtt", choices=("5", "3.1.1"), default="5")
    add("--device", required=True, help="its name, client id and user name")
    add("--secret", required=True, type=bytes_of(32, 32), help="the pair's secret, 64 hexadecimal digits")
    add("--password", help="instead of the one derived from the secret")
    add("--token", required=True, type=bytes_of(1, 32), help="the id token, hexadecimal")
    add("--token-kind", choices=tuple(wire.TOKEN_KIND), default="card")
    add("--kind", required=True, choices=tuple(wire.KIND))
    add("--outlet", type=within(int, 0, OUTLETS_MAX - 1), default=0)
    add("--outlets", type=within(int, 1, OUTLETS_MAX), default=OUTLETS_MAX, help="at least as many as configured")
    add("--boot", type=within(int, 0, 2**32 - 1), default=int(time.time()), help="must grow from run to run")
    add("--down-counter", type=within(int, 0, 2**64 - 1), default=0, help="highest counter accepted in earlier runs")
    add("--register", type=within(int, 0, 2**64 - 2**40), default=1_000, help="reading before the session")
    add("--units", type=within(int, 0, 2**32), help="Wh, cycles or millilitres to deliver")
    add("--meters", type=within(int, 1, 10_000), default=3, help="least number of meter messages")
    add("--seconds", type=within(float, 0, 86_400), default=3.0, help="length of the delivery")
    add("--retry", type=within(float, 0.05, 3_600), default=2.0, help="seconds until a message is said again")
    add("--timeout", type=within(float, 0.1, 86_400), default=30.0, help="seconds until a step is given up")
    add("--refuse-expected", action="store_true", help="succeed if the request is refused")
    add("--reason", choices=tuple(wire.REFUSAL_REASON.values()), help="with --refuse-expected: for this reason only")
    options = parser.parse_args(arguments)
    if options.units is None:
        options.units = UNITS[options.kind]
    return options


def main() -> int:
    device = Device(options_of(sys.argv[1:]))
    try:
        result = run(device)
        if device.forged:
            raise Failed(f"{device.forged} messages were not accepted, though the session completed")
    except Failed as error:
        device.say(f"FAILED: {error}")
        return 1
    finally:
        device.close()
        device.say(f"down counter {device.down_counter}")
    device.say(f"OK, {result}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
