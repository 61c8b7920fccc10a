"""An independent MQTT client (paho-mqtt) against an endpoint that lets everybody do everything, over MQTT 3.1.1 and 5.

The cases carry the names of those of Eclipse Paho's broker interoperability suite that say what they do; what is checked is
ours. `test/nosubscribe` may not be subscribed to. Prints one line a case, and fails if one does.
"""

import argparse
import queue
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

PATIENCE_S = 20
V3, V5 = mqtt.MQTTv311, mqtt.MQTTv5
CASES = []
# Cases run side by side, each with clients and topics of its own.
CASE = threading.local()
SIDE_BY_SIDE = 12


def case(*versions):
    def add(function):
        CASES.extend((function, version) for version in versions)
        return function

    return add


def properties(kind, **values):
    made = Properties(kind)
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Peer:
    """A client with what it saw, in order."""

    def __init__(self, version, name, clean=True, expiry_s=None, will=None, keep_alive_s=60, **connect):
        arguments = {"client_id": name and f"{CASE.name}-{name}", "protocol": version}
        if version == V3:
            arguments["clean_session"] = clean
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, **arguments)
        self.client.max_inflight_messages_set(connect.pop("inflight", 20))
        self.messages, self.events = queue.Queue(), queue.Queue()
        self.manual = connect.pop("manual", False)
        if self.manual:
            self.client.manual_ack_set(True)
        self.client.on_connect = lambda _c, _u, flags, code, props: self.events.put(("connect", flags, code, props))
        self.client.on_disconnect = lambda _c, _u, _f, code, props: self.events.put(("disconnect", code, props))
        self.client.on_subscribe = lambda _c, _u, _mid, codes, _p: self.events.put(("subscribe", codes))
        self.client.on_unsubscribe = lambda _c, _u, _mid, codes, _p: self.events.put(("unsubscribe", codes))
        self.client.on_message = lambda _c, _u, message: self.messages.put(message)
        if will:
            self.client.will_set(**will)
        options = {}
        if version == V5:
            options["clean_start"] = clean
            if expiry_s is not None:
                connect["SessionExpiryInterval"] = expiry_s
            options["properties"] = properties(PacketTypes.CONNECT, **connect)
        self.version = version
        self.client.reconnect_delay_set(1, 1)
        self.client.connect(HOST, PORT, keepalive=keep_alive_s, **options)
        self.client.loop_start()
        _, self.flags, self.code, self.connack = self.event("connect")
        assert not self.code.is_failure, self.code

    def event(self, kind):
        while True:
            event = self.events.get(timeout=PATIENCE_S)
            if event[0] == kind:
                return event

    def subscribe(self, topic, qos=2, **options):
        if self.version == V5:
            identifier = options.pop("identifier", None)
            props = properties(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=identifier) if identifier else None
            self.client.subscribe(topic, options=SubscribeOptions(qos=qos, **options), properties=props)
        else:
            self.client.subscribe(topic, qos)
        return self.event("subscribe")[1]

    def unsubscribe(self, topic):
        self.client.unsubscribe(topic)
        return self.event("unsubscribe")[1]

    def publish(self, topic, payload, qos=0, retain=False, **values):
        props = properties(PacketTypes.PUBLISH, **values) if values else None
        self.client.publish(topic, payload, qos, retain, props).wait_for_publish(PATIENCE_S)

    def next(self):
        return self.messages.get(timeout=PATIENCE_S)

    def payloads(self, count):
        return [self.next().payload for _ in range(count)]

    def nothing(self):
        """Nothing comes before what is sent to oneself now."""
        marker = f"marker/{id(self)}"
        self.subscribe(marker, 0)
        self.publish(marker, b"marker")
        seen = self.next()
        assert seen.payload == b"marker", (seen.topic, seen.payload)

    def leave(self):
        self.client.disconnect()
        self.client.loop_stop()

    def vanish(self):
        """The line is cut: no DISCONNECT."""
        self.client.loop_stop()
        self.client._sock_close()


@case(V3, V5)
def basic(v, t):
    a = Peer(v, "a")
    assert [c.value for c in a.subscribe(t, 2)] == [2]
    for qos in (0, 1, 2):
        a.publish(t, f"qos {qos}", qos)
    assert sorted((m.payload, m.qos) for m in (a.next(), a.next(), a.next())) == [(b"qos 0", 0), (b"qos 1", 1), (b"qos 2", 2)]
    a.leave()


@case(V3, V5)
def retained_messages(v, t):
    a = Peer(v, "a")
    for qos in (0, 1, 2):
        a.publish(f"{t}/{qos}", f"kept {qos}", qos, retain=True)
    b = Peer(v, "b")
    b.subscribe(f"{t}/+")
    got = sorted((m.payload, m.qos, m.retain) for m in (b.next(), b.next(), b.next()))
    assert got == [(b"kept 0", 0, True), (b"kept 1", 1, True), (b"kept 2", 2, True)], got
    for qos in (0, 1, 2):
        a.publish(f"{t}/{qos}", b"", qos, retain=True)
    c = Peer(v, "c")
    c.subscribe(f"{t}/+")
    c.nothing()
    for peer in (a, b, c):
        peer.leave()


@case(V3, V5)
def zero_length_clientid(v, t):
    a = Peer(v, "")
    if v == V5:
        assert a.connack.AssignedClientIdentifier
    a.nothing()
    a.leave()


@case(V3, V5)
def offline_message_queueing(v, t):
    a = Peer(v, "away", clean=False, expiry_s=600)
    a.subscribe(f"{t}/#")
    a.leave()
    b = Peer(v, "b")
    for qos in (0, 1, 2):
        b.publish(f"{t}/{qos}", f"{qos}", qos)
    back = Peer(v, "away", clean=False, expiry_s=600)
    assert back.flags.session_present
    got = [back.next().payload for _ in range(2)]
    assert sorted(got) == [b"1", b"2"], got
    back.nothing()
    back.leave()
    b.leave()
    Peer(v, "away").leave()


@case(V3, V5)
def overlapping_subscriptions(v, t):
    a = Peer(v, "a")
    a.subscribe(f"{t}/#", 2)
    a.subscribe(f"{t}/+", 1)
    a.publish(f"{t}/x", b"once or twice", 2)
    assert a.next().qos == 2
    a.nothing()
    a.leave()


@case(V3, V5)
def keepalive(v, t):
    watcher = Peer(v, "w")
    watcher.subscribe(t)
    will = {"topic": t, "payload": b"keepalive expiry", "qos": 1}
    silent = Peer(v, "silent", keep_alive_s=2, will=will)
    silent.client.loop_stop()  # It pings no more, and the socket stays open.
    assert watcher.next().payload == b"keepalive expiry"
    watcher.leave()


@case(V3, V5)
def redelivery_on_reconnect(v, t):
    a = Peer(v, "again", clean=False, expiry_s=600, manual=True)
    a.subscribe(t, 2)
    b = Peer(v, "b")
    b.publish(t, b"one", 1)
    first = a.next()
    assert not first.dup
    a.vanish()
    back = Peer(v, "again", clean=False, expiry_s=600)
    second = back.next()
    assert (second.payload, second.dup) == (b"one", True), (second.payload, second.dup)
    back.leave()
    b.leave()
    Peer(v, "again").leave()


@case(V3, V5)
def subscribe_failure(v, t):
    a = Peer(v, "a")
    assert [c.is_failure for c in a.subscribe("test/nosubscribe")] == [True]
    a.leave()


@case(V3, V5)
def dollar_topics(v, t):
    a = Peer(v, "a")
    a.subscribe("+/" + t.split("/")[1] + "/#")
    a.publish("$" + t, b"hidden", 1)
    a.publish(t + "/x", b"seen", 1)
    assert a.next().payload == b"seen"
    a.leave()


@case(V3, V5)
def unsubscribe(v, t):
    a = Peer(v, "a")
    for part in ("a", "b", "c"):
        a.subscribe(f"{t}/{part}")
    a.unsubscribe(f"{t}/b")
    for part in ("a", "b", "c"):
        a.publish(f"{t}/{part}", part, 1)
    assert a.payloads(2) == [b"a", b"c"]
    a.leave()


@case(V3, V5)
def will_message(v, t):
    watcher = Peer(v, "w")
    watcher.subscribe(t)
    will = {"topic": t, "payload": b"gone", "qos": 1, "retain": True}
    Peer(v, "dies", will=will).vanish()
    assert watcher.next().payload == b"gone"
    late = Peer(v, "late")
    late.subscribe(t)
    kept = late.next()
    assert (kept.payload, kept.retain) == (b"gone", True)
    Peer(v, "dies", will=will).leave()
    watcher.nothing()
    late.publish(t, b"", 1, retain=True)
    watcher.leave()
    late.leave()


@case(V3, V5)
def takeover(v, t):
    first = Peer(v, "same")
    first.client.on_connect = None
    second = Peer(v, "same")
    code = first.event("disconnect")[1]
    assert v == V3 or code.value == 0x8E, code
    first.client.loop_stop()
    Peer(v, "same").leave()
    second.client.loop_stop()


@case(V5)
def session_expiry(v, t):
    a = Peer(v, "short", clean=True, expiry_s=0)
    a.subscribe(t)
    a.vanish()
    back = Peer(v, "short", clean=False, expiry_s=0)
    assert not back.flags.session_present
    back.leave()


@case(V5)
def user_properties(v, t):
    a = Peer(v, "a")
    a.subscribe(t)
    pairs = [("a", "2"), ("c", "3"), ("a", "2")]
    a.publish(t, b"x", 1, UserProperty=pairs)
    assert a.next().properties.UserProperty == pairs
    a.leave()


@case(V5)
def payload_format(v, t):
    a = Peer(v, "a")
    a.subscribe(t)
    a.publish(t, b"x", 1, PayloadFormatIndicator=1, ContentType="text")
    got = a.next().properties
    assert (got.PayloadFormatIndicator, got.ContentType) == (1, "text")
    a.leave()


@case(V5)
def publication_expiry(v, t):
    a = Peer(v, "away", clean=False, expiry_s=600)
    a.subscribe(t)
    a.leave()
    b = Peer(v, "b")
    b.publish(t, b"soon", 1, MessageExpiryInterval=1)
    b.publish(t, b"late", 1, MessageExpiryInterval=600)
    threading.Event().wait(1.5)  # The time that passes is what is tested.
    back = Peer(v, "away", clean=False, expiry_s=600)
    got = back.next()
    assert got.payload == b"late" and 590 <= got.properties.MessageExpiryInterval <= 600
    back.leave()
    b.leave()
    Peer(v, "away").leave()


@case(V5)
def subscribe_options(v, t):
    a = Peer(v, "a")
    a.publish(t, b"kept", 1, retain=True)
    a.subscribe(t, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND, noLocal=True, retainAsPublished=True)
    a.publish(t, b"mine", 1)
    b = Peer(v, "b")
    b.publish(t, b"theirs", 1, retain=True)
    got = a.next()
    assert (got.payload, got.retain) == (b"theirs", True)
    a.subscribe(t, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
    a.nothing()
    a.subscribe(t, retainHandling=SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE)
    assert a.next().payload == b"theirs"
    b.publish(t, b"", 1, retain=True)
    a.leave()
    b.leave()


@case(V5)
def subscribe_identifiers(v, t):
    a = Peer(v, "a")
    a.subscribe(f"{t}/x", identifier=2)
    a.subscribe(f"{t}/#", identifier=3)
    a.publish(f"{t}/x", b"x", 1)
    assert sorted(a.next().properties.SubscriptionIdentifier) == [2, 3]
    a.leave()


@case(V5)
def request_response(v, t):
    a, b = Peer(v, "a"), Peer(v, "b")
    a.subscribe(f"{t}/answers")
    b.subscribe(f"{t}/requests")
    a.publish(f"{t}/requests", b"?", 1, ResponseTopic=f"{t}/answers", CorrelationData=b"334")
    asked = b.next().properties
    b.publish(asked.ResponseTopic, b"!", 1, CorrelationData=asked.CorrelationData)
    answered = a.next()
    assert (answered.payload, answered.properties.CorrelationData) == (b"!", b"334")
    a.leave()
    b.leave()


@case(V5)
def client_topic_alias(v, t):
    a = Peer(v, "a")
    assert a.connack.TopicAliasMaximum > 0
    a.subscribe(t)
    a.publish(t, b"1", 1, TopicAlias=1)
    a.publish("", b"2", 1, TopicAlias=1)
    assert a.payloads(2) == [b"1", b"2"]
    a.leave()


@case(V5)
def maximum_packet_size(v, t):
    a, b = Peer(v, "a", MaximumPacketSize=100), Peer(v, "b")
    assert a.connack.MaximumPacketSize > 0
    a.subscribe(t)
    b.publish(t, b"x" * 200, 1)
    b.publish(t, b"small", 1)
    assert a.next().payload == b"small"
    a.leave()
    b.leave()


@case(V5)
def server_keep_alive(v, t):
    a = Peer(v, "a", keep_alive_s=60_000)
    assert a.connack.ServerKeepAlive == 60
    a.leave()


@case(V5)
def flow_control(v, t):
    a = Peer(v, "a", ReceiveMaximum=2)
    a.subscribe(t)
    b = Peer(v, "b")
    assert b.connack.ReceiveMaximum > 0
    for i in range(50):
        b.publish(t, str(i), 2)
    assert a.payloads(50) == [str(i).encode() for i in range(50)]
    a.leave()
    b.leave()


@case(V5)
def will_delay(v, t):
    watcher = Peer(v, "w")
    watcher.subscribe(f"{t}/#")
    late = properties(PacketTypes.WILLMESSAGE, WillDelayInterval=600)
    will = {"topic": f"{t}/late", "payload": b"late", "qos": 1, "properties": late}
    Peer(v, "late", clean=False, expiry_s=600, will=will).vanish()
    # Who comes back in time takes it back.
    back = Peer(v, "late", clean=False, expiry_s=600)
    back.leave()
    soon = properties(PacketTypes.WILLMESSAGE, WillDelayInterval=1)
    will = {"topic": f"{t}/soon", "payload": b"soon", "qos": 1, "properties": soon}
    Peer(v, "soon", clean=False, expiry_s=600, will=will).vanish()
    assert watcher.next().payload == b"soon"
    watcher.leave()


@case(V5)
def shared_subscriptions(v, t):
    a, b, c = Peer(v, "a"), Peer(v, "b"), Peer(v, "c")
    for peer in (a, b):
        peer.subscribe(f"$share/group/{t}", 1)
    for i in range(40):
        c.publish(t, str(i), 1)
    got = []
    while len(got) < 40:
        for peer in (a, b):
            try:
                got.append(int(peer.messages.get(timeout=0.05).payload))
            except queue.Empty:
                pass
    assert sorted(got) == list(range(40)), got
    for peer in (a, b, c):
        peer.leave()


def run(number):
    function, version = CASES[number]
    CASE.name = f"case-{number}"
    name = f"{function.__name__} ({'3.1.1' if version == V3 else '5'})"
    try:
        function(version, f"case/{number}")
    except Exception as error:  # noqa: BLE001: a case may fail in any way, and the others go on.
        return False, f"FAILED {name}: {type(error).__name__} {error}"
    return True, f"passed {name}"


def main():
    with ThreadPoolExecutor(SIDE_BY_SIDE) as side_by_side:
        results = list(side_by_side.map(run, range(len(CASES))))
    for _, line in results:
        print(line)
    passed = sum(is_passed for is_passed, _ in results)
    print(f"{passed} of {len(CASES)} passed")
    return 0 if passed == len(CASES) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    HOST, PORT = arguments.host, arguments.port
    sys.exit(main())
