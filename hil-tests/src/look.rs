//! What the gateway itself tells of an evening: why one session was granted, and what the outage did.

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::{books::Books, site::Site};

/// Offset of the bench's sites from UTC, in minutes.
const OFFSET_MIN: i16 = 480;

/// The gateway's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    why: Option<Value>,
    outage: Option<Value>,
    whole: Value,
}

impl Told {
    /// Asks for one session, for the last outage and for everything.
    ///
    /// # Errors
    /// If the gateway does not answer, or has nothing to tell.
    pub fn ask(site: &Site, session: Option<&str>) -> anyhow::Result<Self> {
        let ask = |question: Value| -> anyhow::Result<Option<Value>> {
            let answer = site.question_gateway(&question)?;
            match answer.get("error") {
                Some(_) if answer["exit"] == gateway::exit::NOT_FOUND => Ok(None),
                Some(error) => bail!("the gateway answers {question} with {error}"),
                None => Ok(Some(answer)),
            }
        };
        let report = |span: Value| ask(json!({"get": "report", "span": span, "offset_min": OFFSET_MIN}));
        let why = |session: &str| {
            let wanted = json!({ "session": session });
            ask(json!({"get": "why", "wanted": wanted, "offset_min": OFFSET_MIN}))
        };
        let whole = report(json!({"between": {"since_s": null, "until_s": null}}))?;
        Ok(Self {
            why: session.map(why).transpose()?.flatten(),
            outage: report(json!("last_outage"))?,
            whole: whole.context("a report of everything")?,
        })
    }

    /// Whether the report of the whole evening adds up to what the books say.
    #[must_use]
    pub fn equals(&self, books: &Books) -> bool {
        let ledger = &self.whole["ledger"];
        let revenue = ledger["revenue"].as_object();
        let revenue: Option<i64> = revenue.and_then(|kinds| kinds.values().map(Value::as_i64).sum());
        ledger["held"]["amount"].as_i64() == Some(books.held)
            && ledger["captured"]["amount"].as_i64() == Some(books.captured)
            && revenue == Some(books.captured)
    }

    /// The report of the outage, for machines; `None`: there was none.
    #[must_use]
    pub const fn outage(&self) -> Option<&Value> {
        self.outage.as_ref()
    }

    /// The session as the gateway explains it, and the outage in a few lines.
    pub fn print(&self) {
        if let Some(why) = &self.why {
            println!("\nholdfast why {}", text(&why["session"]));
            for line in rows(&why["summary"]) {
                println!("  {}", text(line));
            }
            for step in rows(&why["walk"]) {
                let mark = if step["decided"] == true { "=>" } else { "  " };
                let number = step["step"].as_u64().unwrap_or(0);
                println!("  {mark} {number:>2}  {}", text(&step["text"]));
            }
        }
        let Some(o) = &self.outage else { return };
        let served = &o["served"];
        println!("\nholdfast report outage");
        println!("  {} to {}", text(&o["began"]["text"]), text(&o["ended"]["text"]));
        let sum = |name: &str, sum: &Value| {
            let amount = proto::money::Money(sum["amount"].as_i64().unwrap_or(0));
            println!(
                "  {name:<46} {:>5} sessions {amount:>9}",
                sum["sessions"].as_u64().unwrap_or(0)
            );
        };
        sum("served, charged", &served["captured"]);
        sum(
            "had it refused whom the cloud did not accept",
            &o["otherwise"]["refused_without_cloud"],
        );
        sum("had it accepted everybody, known bad", &o["otherwise"]["accepted_bad"]);
        sum(
            "had it accepted everybody, unknown",
            &o["otherwise"]["accepted_unknown"],
        );
        let most = proto::money::Money(o["risk"]["exposure_max"].as_i64().unwrap_or(0));
        println!("  {:<46} {:>24}", "most at risk at one time", most.to_string());
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
