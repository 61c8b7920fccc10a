//! The device-side endpoint as a general broker, before a client that is not ours: every case of
//! `hil-tests/python/interoperability.py`, over MQTT 3.1.1 and 5. docs/interoperability.md lists them.
#![allow(clippy::unwrap_used)]

use std::{path::Path, process::Command, sync::Arc};

use mqtt_endpoint::{Access, ConnectDenied, ConnectRequest, Endpoint, Limits};

/// What a broker is to everybody.
struct Open;

impl Access for Open {
    fn connect(&self, _: &ConnectRequest<'_>) -> Result<(), ConnectDenied> {
        Ok(())
    }

    fn may_publish(&self, _: &str, _: &str) -> bool {
        true
    }

    fn may_subscribe(&self, _: &str, filter: &str) -> bool {
        filter != "test/nosubscribe"
    }

    fn intercepts(&self, _: &str) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_independent_client_finds_a_broker() {
    let limits = Limits {
        keep_alive_s_max: 60,
        ..Limits::default()
    };
    let (sender, mut inbound) = tokio::sync::mpsc::channel(1024);
    let endpoint = Endpoint::bind(([127, 0, 0, 1], 0).into(), limits, Arc::new(Open), sender)
        .await
        .unwrap();
    tokio::spawn(async move { while inbound.recv().await.is_some() {} });
    let python = std::env::var("HOLDFAST_PYTHON")
        .expect("HOLDFAST_PYTHON names a Python with hil-tests/python/requirements.txt; cargo xtask test sets it");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/interoperability.py");
    let port = endpoint.local_addr().port().to_string();
    let client = move || {
        Command::new(python)
            .arg(script)
            .args(["--port", &port])
            .output()
            .unwrap()
    };
    let output = tokio::task::spawn_blocking(client).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        said.lines().filter(|line| line.starts_with("passed")).count() >= 37,
        "{said}"
    );
    endpoint.shutdown().await;
}
