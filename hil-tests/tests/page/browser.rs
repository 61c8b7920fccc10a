//! A real browser before the page: Chromium without a screen, driven as WebDriver says.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

/// How long the page may take to show what the gateway knows: as long as the slowest change of mode here.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The driver, and the tests' accessibility checker.
pub struct Browsers {
    driver: Child,
    address: String,
    axe: String,
}

/// What a browser is told to be.
#[derive(Clone, Copy, Debug)]
pub struct Looks {
    pub lang: &'static str,
    pub size: (u32, u32),
    pub is_phone: bool,
    pub is_dark: bool,
}

impl Browsers {
    /// Starts the driver on a port of its own choice.
    pub fn start() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .spawn()
            .expect("chromedriver is installed: cargo xtask test --step setup");
        let mut lines = BufReader::new(driver.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let port: u16 = lines
            .find_map(|line| {
                let (_, port) = line.split_once("started successfully on port ")?;
                port.trim_end_matches('.').parse().ok()
            })
            .expect("the driver says its port");
        // It goes on talking.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            driver,
            address: format!("http://127.0.0.1:{port}"),
            axe: axe(),
        }
    }

    pub async fn open(&self, looks: Looks) -> Browser {
        let (width, height) = looks.size;
        let mut args = vec![
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-gpu".to_owned(),
            "--hide-scrollbars".to_owned(),
            format!("--lang={}", looks.lang),
            format!("--window-size={width},{height}"),
        ];
        if looks.is_dark {
            args.push("--blink-settings=preferredColorScheme=0".to_owned());
        }
        let mut options = json!({"args": args, "prefs": {"intl.accept_languages": looks.lang}});
        if looks.is_phone {
            let metrics = json!({"width": width, "height": height, "pixelRatio": 1, "touch": true});
            options["mobileEmulation"] = json!({ "deviceMetrics": metrics });
        }
        let Value::Object(wanted) = json!({"browserName": "chrome", "goog:chromeOptions": options}) else {
            unreachable!("an object was written")
        };
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(wanted)
            .connect(&self.address)
            .await
            .expect("chromium is installed: cargo xtask test --step setup");
        Browser {
            client,
            axe: self.axe.clone(),
        }
    }
}

impl Drop for Browsers {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The source of axe-core, from the tests' Python packages.
fn axe() -> String {
    let python = std::env::var("HOLDFAST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let find = "import importlib.util as u; print(u.find_spec('axe_core_python').submodule_search_locations[0])";
    let output = Command::new(python).args(["-c", find]).output().unwrap();
    assert!(
        output.status.success(),
        "axe-core is installed by `cargo xtask test --step setup`, which sets HOLDFAST_PYTHON: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let folder = String::from_utf8(output.stdout).unwrap();
    std::fs::read_to_string(format!("{}/axe.min.js", folder.trim())).unwrap()
}

/// One window.
pub struct Browser {
    pub client: Client,
    axe: String,
}

impl Browser {
    pub async fn go(&self, page: SocketAddr, path: &str) {
        self.client.goto(&format!("http://{page}/{path}")).await.unwrap();
    }

    pub async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap()
    }

    /// The text of an element as people see it; empty if it is not there, or hidden.
    pub async fn text(&self, selector: &str) -> String {
        let script = "const found = document.querySelector(arguments[0]); return found ? found.innerText : '';";
        let text = self.client.execute(script, vec![json!(selector)]).await.unwrap();
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the text of an element is as wanted; what it is then. Nothing is loaded again meanwhile.
    pub async fn until(&self, selector: &str, what: &str, is: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let text = self.text(selector).await;
            if is(&text) {
                return text;
            }
            assert!(
                Instant::now() < end,
                "{selector} never became {what}; it is {text:?}; the page:\n{}",
                self.text("body").await
            );
            // Asking is the synchronisation; this only spares the processor.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub async fn click(&self, selector: &str) {
        let script = "document.querySelector(arguments[0]).click();";
        self.client.execute(script, vec![json!(selector)]).await.unwrap();
    }

    /// Faults that axe calls serious or critical, each with where it is.
    pub async fn faults(&self) -> Vec<String> {
        self.run(&format!("{}; window.axe = axe;", self.axe)).await;
        let script = "const done = arguments[arguments.length - 1];
            axe.run(document).then((found) => done(found.violations
                .filter((one) => one.impact === 'serious' || one.impact === 'critical')
                .map((one) => one.id + ': ' + one.help + ' at ' + one.nodes.map((node) => node.target.join(' ') + ' ' + (node.any[0]?.message ?? '')).join(', '))),
                (error) => done(['axe failed: ' + error]));";
        let found = self.client.execute_async(script, Vec::new()).await.unwrap();
        serde_json::from_value(found).unwrap()
    }

    /// By how many pixels the page is wider than the window.
    pub async fn overflow(&self) -> i64 {
        let script = "const root = document.documentElement; return root.scrollWidth - root.clientWidth;";
        self.run(script).await.as_i64().unwrap()
    }

    /// Keeps what is seen, if somebody wants to look (`HOLDFAST_SCREENSHOTS`: a folder).
    pub async fn picture(&self, name: &str) {
        if let Some(folder) = std::env::var_os("HOLDFAST_SCREENSHOTS") {
            self.run("window.scrollTo(0, 0);").await;
            let bytes = self.client.screenshot().await.unwrap();
            std::fs::write(std::path::Path::new(&folder).join(format!("{name}.png")), bytes).unwrap();
        }
    }
}
