//! MQTT 3.1.1 and 5 server endpoint that acknowledges when told to
