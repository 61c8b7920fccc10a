//! Clients that others wrote: rumqttc for both versions, and mosquitto's command-line tools.

mod common;

use std::process::{Output, Stdio};
use std::time::Duration;

use common::{DISCONNECT, Rig, soon, v311};
use mqtt_endpoint::{Inbound, Protocol, Published, Qos};
use tokio::process::Command;

/// Accept every message, answer it on `down/<client>`, and report it.
async fn answer_one(rig: &mut Rig) -> (String, Vec<u8>) {
    loop {
        if let Inbound::Publish {
            client_id,
            payload,
            ack,
            ..
        } = rig.event().await
        {
            let topic = format!("down/{client_id}");
            let answer = rig.handle.publish(&topic, &payload, Qos::AtLeastOnce, false);
            assert_eq!(answer, Ok(Published::Delivered));
            ack.accept();
            return (client_id.to_string(), payload.to_vec());
        }
    }
}

#[tokio::test]
async fn rumqttc_v4_asks_and_is_answered() {
    use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
    let mut rig = Rig::new().await;
    let mut options = MqttOptions::new("four", "127.0.0.1", rig.addr.port());
    options
        .set_keep_alive(Duration::from_secs(30))
        .set_credentials("user", "pw");
    let (client, mut events) = AsyncClient::new(options, 10);
    let polling = tokio::spawn(async move {
        let (mut acknowledged, mut answers) = (0, Vec::new());
        while acknowledged < 20 || answers.len() < 20 {
            match events.poll().await.expect("the connection stays up") {
                Event::Incoming(Packet::PubAck(_)) => acknowledged += 1,
                Event::Incoming(Packet::Publish(publish)) => answers.push(publish.payload.to_vec()),
                _ => {}
            }
        }
        answers
    });
    client.subscribe("down/four", QoS::AtLeastOnce).await.unwrap();
    for number in 0..20u8 {
        client
            .publish("up/four", QoS::AtLeastOnce, false, vec![number])
            .await
            .unwrap();
        assert_eq!(answer_one(&mut rig).await, ("four".into(), vec![number]));
    }
    assert_eq!(
        soon("20 answers", polling).await.unwrap(),
        (0..20u8).map(|number| vec![number]).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn rumqttc_v5_asks_and_is_answered() {
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::Packet;
    use rumqttc::v5::{AsyncClient, Event, MqttOptions};
    let mut rig = Rig::new().await;
    let mut options = MqttOptions::new("five", "127.0.0.1", rig.addr.port());
    options
        .set_keep_alive(Duration::from_secs(30))
        .set_credentials("user", "pw");
    let (client, mut events) = AsyncClient::new(options, 10);
    let polling = tokio::spawn(async move {
        let (mut completed, mut answers) = (0, Vec::new());
        while completed < 20 || answers.len() < 20 {
            match events.poll().await.expect("the connection stays up") {
                Event::Incoming(Packet::PubComp(_)) => completed += 1,
                Event::Incoming(Packet::Publish(publish)) => answers.push(publish.payload.to_vec()),
                _ => {}
            }
        }
        answers
    });
    client.subscribe("down/five", QoS::AtLeastOnce).await.unwrap();
    for number in 0..20u8 {
        client
            .publish("up/five", QoS::ExactlyOnce, false, vec![number])
            .await
            .unwrap();
        assert_eq!(answer_one(&mut rig).await, ("five".into(), vec![number]));
    }
    assert_eq!(
        soon("20 answers", polling).await.unwrap(),
        (0..20u8).map(|number| vec![number]).collect::<Vec<_>>()
    );
}

/// One of mosquitto's tools, told where the endpoint is.
fn mosquitto(rig: &Rig, tool: &str, version: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(tool);
    command.args([
        "-h",
        "127.0.0.1",
        "-p",
        &rig.addr.port().to_string(),
        "-V",
        version,
        "-u",
        "user",
    ]);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn finished(command: &mut Command) -> Output {
    let output = command.output().await;
    soon("mosquitto", async { output.expect("mosquitto-clients is installed") }).await
}

#[tokio::test]
async fn mosquitto_publishes_to_mosquitto() {
    let rig = Rig::new().await;
    for (publisher, subscriber) in [("mqttv311", "mqttv5"), ("mqttv5", "mqttv311")] {
        for qos in ["0", "1", "2"] {
            let arguments = ["-P", "pw", "-t", "hall/#", "-q", qos, "-C", "3", "-v"];
            let mut subscriber = mosquitto(&rig, "mosquitto_sub", subscriber, &arguments);
            let receiving = tokio::spawn(async move { finished(&mut subscriber).await });
            soon("the subscription", async {
                while rig.handle.counters().subscriptions == 0 {
                    tokio::task::yield_now().await;
                }
            })
            .await;
            for text in ["one", "two", "three"] {
                let arguments = ["-P", "pw", "-t", "hall/a", "-q", qos, "-m", text];
                let output = finished(&mut mosquitto(&rig, "mosquitto_pub", publisher, &arguments)).await;
                assert!(output.status.success(), "{output:?}");
            }
            let output = receiving.await.unwrap();
            assert_eq!(
                String::from_utf8_lossy(&output.stdout),
                "hall/a one\nhall/a two\nhall/a three\n",
                "QoS {qos}"
            );
            assert!(output.status.success(), "{output:?}");
            soon("its end", async {
                while rig.handle.connections() > 0 {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
    }
}

#[tokio::test]
async fn mosquitto_waits_for_the_application_and_is_refused_a_bad_password() {
    let mut rig = Rig::new().await;
    for version in ["mqttv311", "mqttv5"] {
        for qos in ["1", "2"] {
            let arguments = ["-P", "pw", "-i", "tool", "-t", "up/x", "-q", qos, "-m", "hello"];
            let mut command = mosquitto(&rig, "mosquitto_pub", version, &arguments);
            let publishing = tokio::spawn(async move { finished(&mut command).await });
            let (payload, _, promise) = rig.message().await;
            assert_eq!(payload, b"hello");
            promise.accept();
            let output = publishing.await.unwrap();
            assert!(output.status.success(), "{output:?}");
        }
        let arguments = ["-P", "wrong", "-t", "up/x", "-m", "hello"];
        let output = finished(&mut mosquitto(&rig, "mosquitto_pub", version, &arguments)).await;
        assert!(!output.status.success(), "{output:?}");
    }
}

/// A retained message of the application, read by a tool, and cleared by it.
#[tokio::test]
async fn mosquitto_reads_and_clears_what_is_retained() {
    let rig = Rig::new().await;
    for version in ["mqttv311", "mqttv5"] {
        rig.handle.publish("status", b"open", Qos::AtLeastOnce, true).unwrap();
        let arguments = ["-P", "pw", "-t", "status", "-q", "1", "-C", "1", "-F", "%r %p"];
        let output = finished(&mut mosquitto(&rig, "mosquitto_sub", version, &arguments)).await;
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "1 open", "{output:?}");
        let arguments = ["-P", "pw", "-t", "status", "-q", "1", "-r", "-n"];
        finished(&mut mosquitto(&rig, "mosquitto_pub", version, &arguments)).await;
        let mut client = rig.client(&v311("check")).await;
        client.subscribe(Protocol::V311, &[("status", 0)]).await;
        client.nothing_before_pingresp().await;
        client.send(&DISCONNECT).await;
    }
}
