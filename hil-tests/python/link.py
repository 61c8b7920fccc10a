"""The link of a device: MQTT, seals, retries and the clock, as proto/README.md describes them."""

from __future__ import annotations

import argparse
import queue
import socket
import time
from typing import Any, Callable

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

import tariff
import wire

KEEP_ALIVE_S = 30
CONNECTED = "connected"
REFUSED = "refuses"


class Failed(Exception):
    """The session cannot complete."""


class Told:
    """A message of the gateway whose seal fits."""

    def __init__(self, word: str, value: dict[str, Any]) -> None:
        self.word = word
        self.value = value


class Link:
    """Connection, seals and clock of one device."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.begin_s = time.monotonic()
        self.up_key = wire.seal_key(options.secret, "up")
        self.down_key = wire.seal_key(options.secret, "down")
        self.counter = options.boot << 32
        self.down_counter = options.down_counter
        self.forged = 0
        self.clock: tuple[float, dict[str, Any]] | None = None
        self.inbox: queue.Queue[tuple[str, bytes] | str] = queue.Queue()
        self.client = self._client()

    # ------------------------------------------------------------------------------------------------------------ link

    def _client(self) -> mqtt.Client:
        options = self.options
        is_v5 = options.mqtt == "5"
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=options.device,
            clean_session=None if is_v5 else True,
            protocol=mqtt.MQTTv5 if is_v5 else mqtt.MQTTv311,
        )
        client.username_pw_set(options.device, options.password or wire.password(options.secret))
        client.connect_timeout = options.timeout
        client.reconnect_delay_set(1, 4)
        client.on_socket_open = lambda _client, _data, sock: sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.on_connect = self._connected
        client.on_connect_fail = lambda _client, _data: self.inbox.put("nobody listens there")
        client.on_disconnect = lambda _c, _d, _f, reason, _p: self.inbox.put(f"disconnected: {reason}")
        client.on_subscribe = self._subscribed
        client.on_message = lambda _client, _data, message: self.inbox.put((message.topic, message.payload))
        return client

    def _connected(self, client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self.inbox.put(f"{REFUSED} the connection: {reason}")
        else:
            client.subscribe(self.topic("down", "+"), qos=1)

    def _subscribed(self, _client: mqtt.Client, _data: Any, _mid: int, reasons: list[Any], _properties: Any) -> None:
        self.inbox.put(f"{REFUSED} the subscription: {reasons[0]}" if reasons[0].is_failure else CONNECTED)

    def connect(self) -> None:
        """Until the subscription stands; tries again while nobody listens."""
        options = self.options
        self.say(f"connect to {options.host}:{options.port}, MQTT {options.mqtt}")
        self.client.connect_async(options.host, options.port, keepalive=KEEP_ALIVE_S)
        self.client.loop_start()
        until_s = time.monotonic() + options.timeout
        while (note := self._next(until_s)) is not None:
            if note == CONNECTED:
                return
            if isinstance(note, str):
                self.say(f"   {note}")
                if note.startswith(REFUSED):
                    raise Failed(f"the gateway {note}")
        raise Failed(f"no connection and subscription within {options.timeout} s")

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def topic(self, way: str, word: str) -> str:
        return f"dev/1/{self.options.device}/{way}/{word}"

    def send(self, word: str, value: dict[str, Any]) -> None:
        """Seals and publishes; the next counter, also when it is said again."""
        self.counter += 1
        topic = self.topic("up", word)
        frame = wire.seal(self.up_key, topic, self.counter, wire.encode(word, value))
        self.client.publish(topic, frame, qos=1)
        self.say(f"-> {word} {shown(value)}")

    def _next(self, until_s: float) -> tuple[str, bytes] | str | None:
        try:
            return self.inbox.get(timeout=max(0.0, until_s - time.monotonic()))
        except queue.Empty:
            return None

    def hear(self, until_s: float) -> Told | None:
        """The next good message; None at `until_s`. Whatever does not fit is shown and never acted upon."""
        while (note := self._next(until_s)) is not None:
            if isinstance(note, str):
                self.say(f"   {note}")
                if note == CONNECTED:
                    # After every connection the first message is a hello; its clock is heard like any message.
                    self.send("hello", self.hello_value())
                continue
            topic, frame = note
            word = topic.rsplit("/", 1)[-1]
            try:
                if word not in ("clock", "grant", "refusal", "receipt", "command"):
                    raise wire.Refused("nobody knows this topic")
                counter, body = wire.open_frame(self.down_key, topic, frame, self.down_counter)
                self.down_counter = counter
                told = Told(word, wire.decode(word, body))
            except wire.Refused as error:
                # A message may arrive twice; anything else should not be there.
                self.forged += 0 if error.replay else 1
                self.say(f"<- {topic}: NOT ACCEPTED, {error}")
                continue
            self.say(f"<- {word} {shown(told.value)}")
            if word == "clock":
                self.clock = (time.monotonic(), told.value)
            if word == "command":
                self.command(told.value)
            else:
                return told
        return None

    def ask(self, word: str, value: Callable[[], dict[str, Any]], answers: Callable[[Told], bool]) -> Told:
        """Says it again until it is answered."""
        until_s = time.monotonic() + self.options.timeout
        while time.monotonic() < until_s:
            self.send(word, value())
            retry_s = min(until_s, time.monotonic() + self.options.retry)
            while (told := self.hear(retry_s)) is not None:
                if answers(told):
                    return told
        raise Failed(f"{word} was not answered within {self.options.timeout} s")

    # ----------------------------------------------------------------------------------------------------------- clock

    def at(self) -> dict[str, int]:
        mono_ms = int((time.monotonic() - self.begin_s) * 1000)
        wall_s = self.wall_s()
        quality = self.clock[1]["quality"] if self.clock and wall_s else wire.QUALITY["unknown"]
        return {"mono_ms": mono_ms, "wall_s": wall_s, "quality": quality}

    def wall_s(self) -> int:
        if self.clock is None or self.clock[1]["wall_s"] == 0:
            return 0
        heard_s, clock = self.clock
        return clock["wall_s"] + int(time.monotonic() - heard_s)

    def second_of_day(self) -> int | None:
        if self.wall_s() == 0:
            return None
        return (self.wall_s() + self.clock[1]["offset_min"] * 60) % tariff.DAY_S

    def hello_value(self) -> dict[str, Any]:
        return {
            "version_min": wire.VERSION,
            "version_max": wire.VERSION,
            "kind": wire.KIND[self.options.kind],
            "outlets": self.options.outlets,
            "boot": self.options.boot,
            "down_counter": self.down_counter,
            "firmware": "scripted device 1",
            "at": self.at(),
        }

    def hello(self) -> None:
        """Until the gateway's clock is there."""

        def answers(told: Told) -> bool:
            if told.word == "refusal" and told.value["session"] == bytes(16):
                raise Failed(f"the hello is refused: {wire.REFUSAL_REASON.get(told.value['reason'])}")
            return told.word == "clock" and told.value["boot"] == self.options.boot

        clock = self.ask("hello", self.hello_value, answers).value
        if clock["version"] != wire.VERSION:
            raise Failed(f"the gateway wants to speak version {clock['version']}")

    def command(self, command: dict[str, Any]) -> None:
        """What the gateway wants done. A device does it and answers; this is no device yet."""
        raise NotImplementedError

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.begin_s:8.3f}  {text}", flush=True)


def shown(value: dict[str, Any]) -> str:
    """For people: what matters of a message; never the token."""
    parts = []
    for key, each in value.items():
        if key in ("at", "token", "tariff", "tariff_hash", "firmware"):
            continue
        parts.append(f"{key}={each.hex() if isinstance(each, bytes) else each}")
    return " ".join(parts)
