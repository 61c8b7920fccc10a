//! The operator's bridge: between the shapes of a cloud and the hub's own MQTT endpoint. For whoever writes one for a
//! cloud of their own, this is the reference; it is all that has to be built there.
//!
//! 1. Unwrap: in the cloud's message find word, lane and frame. Do not open the frame; it is sealed between gateway and
//!    hub, and a bridge has no key.
//! 2. For each gateway and lane keep one MQTT connection to the hub: client id `topic::link_client(gateway, lane)`, user
//!    name the gateway's id, password [`PairSecret::password`](proto::seal::PairSecret::password) of its link secret;
//!    subscribe to `topic::link_down_filter`. Open it with the first frame, close it when the cloud says that the gateway
//!    is gone, so that the hub shows who is there.
//! 3. Publish each frame as it is to `topic::link_up` with QoS 1 (telemetry: QoS 0), in the order in which they came: the
//!    hub takes counters that grow, and nothing else.
//! 4. Wrap what comes under the filter, and send it to that gateway on that lane, in order too.
//!
//! Nothing has to be stored. What is lost between cloud and hub the gateway says again until it holds the hub's receipt,
//! and what comes twice the hub knows.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use proto::{
    id::GatewayId,
    link::LINK_FRAME_BYTES_MAX,
    topic::{self, Lane, LinkUp},
};
use rumqttc::v5::{
    AsyncClient, Event, EventLoop, MqttOptions,
    mqttbytes::{QoS, v5::Packet},
};
use tokio::sync::mpsc;

use super::{
    Member,
    broker::{FrameDown, FrameUp},
    counters::Counters,
};

/// Frames that wait for the hub; more are lost, and said again by the gateway.
const FRAMES_MAX: usize = 512;
/// Frames of the hub's that wait for the cloud; then nothing more is read from the hub.
const DOWN_MAX: usize = 256;
/// Bytes of an MQTT packet around a frame.
const PACKET_OVERHEAD_BYTES: u32 = 1_024;
/// Between two attempts to reach the hub.
const AGAIN: Duration = Duration::from_millis(250);
/// Silence after which a connection to the hub is looked at.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A frame, and the word under which it is sealed.
type Frame = (LinkUp, Vec<u8>);

/// Every road to the hub.
pub(crate) struct Bridge {
    hub: SocketAddr,
    members: BTreeMap<GatewayId, Member>,
    roads: BTreeMap<(GatewayId, Lane), mpsc::Sender<Frame>>,
    down: mpsc::Sender<FrameDown>,
    counters: Arc<Counters>,
}

impl Bridge {
    /// A bridge to a hub, and what the hub says.
    pub(crate) fn new(
        hub: SocketAddr,
        members: &[Member],
        counters: Arc<Counters>,
    ) -> (Self, mpsc::Receiver<FrameDown>) {
        let (down, heard) = mpsc::channel(DOWN_MAX);
        let bridge = Self {
            hub,
            members: members.iter().map(|member| (member.gateway, member.clone())).collect(),
            roads: BTreeMap::new(),
            down,
            counters,
        };
        (bridge, heard)
    }

    /// Passes a frame on. Needs a runtime.
    pub(crate) fn up(&mut self, up: FrameUp) {
        let Some(member) = self.members.get(&up.gateway) else {
            return;
        };
        let road = self.roads.entry((up.gateway, up.lane)).or_insert_with(|| {
            let (road, frames) = mpsc::channel(FRAMES_MAX);
            tokio::spawn(drive(self.hub, member.clone(), up.lane, frames, self.down.clone()));
            road
        });
        if road.try_send((up.word, up.frame)).is_err() {
            self.counters.swallowed.add();
        }
    }

    /// The cloud says that a gateway is gone: its connections to the hub end.
    pub(crate) fn left(&mut self, gateway: GatewayId, lane: Option<Lane>) {
        self.roads
            .retain(|(id, on), _| *id != gateway || lane.is_some_and(|lane| lane != *on));
    }
}

/// One gateway's road on one lane, until nobody needs it.
async fn drive(
    hub: SocketAddr,
    member: Member,
    lane: Lane,
    mut frames: mpsc::Receiver<Frame>,
    down: mpsc::Sender<FrameDown>,
) {
    let filter = topic::link_down_filter(&member.site, &member.gateway, lane);
    loop {
        let (client, events) = AsyncClient::new(options(hub, &member, lane), FRAMES_MAX);
        let (up, mut subscribed) = mpsc::channel(1);
        let polling = tokio::spawn(poll(events, client.clone(), filter.to_string(), up, down.clone()));
        let mut open = subscribed.recv().await.is_some();
        while open && !polling.is_finished() {
            tokio::select! {
                frame = frames.recv() => match frame {
                    None => {
                        // Nobody waits for the answer.
                        let _ = client.disconnect().await;
                        polling.abort();
                        return;
                    }
                    Some((word, frame)) => {
                        let qos = if word == LinkUp::Telemetry { QoS::AtMostOnce } else { QoS::AtLeastOnce };
                        let topic = topic::link_up(&member.site, &member.gateway, word, lane);
                        open = client.publish(topic.as_str(), qos, false, frame).await.is_ok();
                    }
                },
                // The second time it says something, it says that it has ended.
                _ = subscribed.recv() => open = false,
            }
        }
        polling.abort();
        if frames.is_closed() {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn options(hub: SocketAddr, member: &Member, lane: Lane) -> MqttOptions {
    let client_id = topic::link_client(&member.gateway, lane);
    let mut options = MqttOptions::new(client_id.as_str(), hub.ip().to_string(), hub.port());
    options
        .set_credentials(member.gateway.as_str(), &member.password)
        .set_keep_alive(KEEP_ALIVE)
        .set_clean_start(true)
        .set_max_packet_size(Some(LINK_FRAME_BYTES_MAX as u32 + PACKET_OVERHEAD_BYTES));
    options
}

/// Works a connection to the hub until it ends.
async fn poll(
    mut events: EventLoop,
    client: AsyncClient,
    filter: String,
    up: mpsc::Sender<()>,
    down: mpsc::Sender<FrameDown>,
) {
    loop {
        let packet = match events.poll().await {
            Ok(Event::Incoming(packet)) => packet,
            Ok(Event::Outgoing(_)) => continue,
            Err(error) => return tracing::debug!(%error, "no connection to the hub"),
        };
        match packet {
            Packet::ConnAck(_) if client.try_subscribe(&filter, QoS::AtLeastOnce).is_err() => return,
            Packet::SubAck(_) if up.send(()).await.is_err() => return,
            Packet::Publish(publish) => {
                let topic = String::from_utf8_lossy(&publish.topic);
                let Some(at) = topic::parse_link_down(&topic) else {
                    continue;
                };
                let frame = FrameDown {
                    gateway: at.gateway,
                    lane: at.lane,
                    word: at.word,
                    frame: publish.payload.to_vec(),
                };
                if down.send(frame).await.is_err() {
                    return;
                }
            }
            _ => {}
        }
    }
}
