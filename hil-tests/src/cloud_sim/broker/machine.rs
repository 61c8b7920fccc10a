//! Connections, sessions and stages. Sans-I/O: inputs with the time they came at, outputs in the order they leave.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::Arc,
};

use super::{
    Admitted, Conn, Cx, Input, Message, Output, Personality, Refused, Rules, Say, Taken, Tls, connack_code_5,
    packet::{self, Connect, Packet, Publish},
    session::Session,
};
use crate::cloud_sim::{
    allowance::Allowances,
    counters::Counters,
    fault::{Fault, Faults, Of, Stage},
};

/// What a captive portal answers, whatever it was asked.
pub(crate) const PORTAL: &str = "<!DOCTYPE html><html><head><title>Guest network</title></head>\
    <body><form action=\"/login\">Please accept the terms of use.</form></body></html>";
/// Code of a session that somebody took over.
const TAKEN_OVER: u8 = 0x8e;
/// Code of a client that was silent for too long.
const SILENT: u8 = 0x8d;
/// Code of a client whose credential ended.
const NOT_AUTHORIZED: u8 = 0x87;
/// Code of a packet that cannot be read.
const MALFORMED: u8 = 0x81;
/// Name under which connections are counted whose owner is not known yet.
pub(crate) const ANYBODY: &str = "tcp";

#[derive(Debug)]
enum State {
    /// It has not said who it is.
    Fresh,
    /// It is logged in.
    In(String),
    /// It waits for an answer that will not come.
    Hung,
}

#[derive(Debug)]
struct Client {
    state: State,
    version: u8,
    tls: Option<Tls>,
    keep_alive_ms: u64,
    heard_ms: u64,
}

/// A broker.
pub(crate) struct Broker {
    rules: Rules,
    personality: Box<dyn Personality>,
    faults: Faults,
    rng: fastrand::Rng,
    /// How much faster the vendor's clock runs than the world's.
    times: u64,
    counters: Arc<Counters>,
    clients: BTreeMap<Conn, Client>,
    sessions: BTreeMap<String, Session>,
    allowances: Allowances,
    /// Replies that are on their way, with when they arrive.
    delayed: VecDeque<(u64, String, Message, bool)>,
    stranger_ms: u64,
    now_ms: u64,
    wall_ms: u64,
    out: Vec<Output>,
}

impl Broker {
    pub(crate) fn new(personality: Box<dyn Personality>, seed: u64, times: u64, counters: Arc<Counters>) -> Self {
        Self {
            rules: personality.rules(),
            personality,
            faults: Faults::default(),
            rng: fastrand::Rng::with_seed(seed),
            times: times.max(1),
            counters,
            clients: BTreeMap::new(),
            sessions: BTreeMap::new(),
            allowances: Allowances::default(),
            delayed: VecDeque::new(),
            stranger_ms: 0,
            now_ms: 0,
            wall_ms: 0,
            out: Vec::new(),
        }
    }

    /// Largest packet that is taken, in bytes.
    pub(crate) const fn packet_bytes_max(&self) -> usize {
        self.rules.packet_bytes_max
    }

    /// Something happens, at this time.
    pub(crate) fn handle(&mut self, now_ms: u64, wall_ms: u64, input: Input) -> Vec<Output> {
        (self.now_ms, self.wall_ms) = (now_ms, wall_ms);
        match input {
            Input::Opened { conn, tls } => self.opened(conn, tls),
            Input::Packet { conn, bytes } => self.packet(conn, &bytes),
            Input::Gone { conn } => self.gone(conn),
            Input::Down(frame) => {
                if self.faults.has(now_ms, &Fault::HalfDead) || self.faults.hangs(now_ms, Stage::Tcp) {
                    self.counters.swallowed.add();
                } else {
                    self.counters.carried_down.add();
                    self.ask(false, |personality, cx| personality.down(cx, frame));
                }
            }
            Input::Faults(faults) => {
                self.faults = faults;
                self.stranger_ms = now_ms;
                self.ask(false, |personality, cx| personality.changed(cx));
                self.tick();
            }
            Input::Command(command) => self.ask(false, |personality, cx| personality.command(cx, command)),
            Input::Tick => self.tick(),
        }
        mem::take(&mut self.out)
    }

    /// Asks the personality something, and does what it wants.
    fn ask<T>(&mut self, throttled: bool, question: impl FnOnce(&mut dyn Personality, &mut Cx<'_>) -> T) -> T {
        let mut says = Vec::new();
        let mut cx = Cx {
            now_ms: self.now_ms,
            wall_ms: self.wall_ms,
            faults: &self.faults,
            throttled,
            counters: &self.counters,
            out: &mut says,
        };
        let answer = question(self.personality.as_mut(), &mut cx);
        for say in says {
            match say {
                Say::Up(frame) => {
                    self.counters.carried_up.add();
                    self.out.push(Output::Up(frame));
                }
                Say::Left(gateway, lane) => self.out.push(Output::Left(gateway, lane)),
                Say::Tell { who, message } => self.deliver(&who, message, false),
                Say::Reply { who, message } => self.reply(who, message, false),
                Say::Unasked { who, message } => self.reply(who, message, true),
            }
        }
        answer
    }

    fn opened(&mut self, conn: Conn, tls: Option<Tls>) {
        self.counters.opened.add();
        self.counters.attempt(ANYBODY, self.now_ms);
        if self.faults.has(self.now_ms, &Fault::Captive) {
            let page = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{PORTAL}",
                PORTAL.len()
            );
            self.out.push(Output::Send(conn, page.into_bytes()));
            return self.close(conn, 0);
        }
        if self.faults.closes_after(self.now_ms, Stage::Tcp) || self.faults.closes_after(self.now_ms, Stage::Tls) {
            return self.close(conn, 0);
        }
        let client = Client {
            state: State::Fresh,
            version: 4,
            tls,
            keep_alive_ms: 0,
            heard_ms: self.now_ms,
        };
        self.clients.insert(conn, client);
    }

    /// Ends a connection; a client that speaks MQTT 5 is told why, if there is a code.
    fn close(&mut self, conn: Conn, code: u8) {
        self.counters.closed.add();
        if code != 0
            && let Some(client) = self.clients.get(&conn)
        {
            let bytes = packet::disconnect(client.version, code);
            if !bytes.is_empty() {
                self.out.push(Output::Send(conn, bytes));
            }
        }
        self.out.push(Output::Close(conn));
        self.gone(conn);
    }

    fn gone(&mut self, conn: Conn) {
        let Some(client) = self.clients.remove(&conn) else {
            return;
        };
        let State::In(who) = client.state else { return };
        let Some(session) = self.sessions.get_mut(&who).filter(|session| session.conn == Some(conn)) else {
            return;
        };
        (session.conn, session.left_ms) = (None, self.now_ms);
        if session.kept_ms == 0 {
            self.sessions.remove(&who);
        }
        self.ask(false, |personality, cx| personality.left(cx, &who));
    }

    fn packet(&mut self, conn: Conn, bytes: &[u8]) {
        if self.faults.hangs(self.now_ms, Stage::Tcp) {
            return self.counters.swallowed.add();
        }
        let Some(client) = self.clients.get_mut(&conn) else {
            return;
        };
        client.heard_ms = self.now_ms;
        let packet = match Packet::parse(bytes, client.version) {
            Ok(packet) => packet,
            Err(malformed) => return self.breach(conn, MALFORMED, malformed.0),
        };
        let who = match (&client.state, packet) {
            (State::Hung, _) => return self.counters.swallowed.add(),
            (State::Fresh, Packet::Connect(connect)) => return self.connect(conn, &connect),
            (State::Fresh, _) => return self.breach(conn, 0, "something before CONNECT"),
            (State::In(_), Packet::Connect(_)) => return self.breach(conn, 0x82, "a second CONNECT"),
            (State::In(who), packet) => (who.clone(), client.version, packet),
        };
        let (who, version, packet) = who;
        match packet {
            Packet::Ping => self.out.push(Output::Send(conn, packet::pong())),
            Packet::Disconnect => {
                self.out.push(Output::Close(conn));
                self.gone(conn);
            }
            Packet::Puback(id) => {
                if let Some(session) = self.sessions.get_mut(&who) {
                    session.acknowledged(id);
                }
                self.pump(&who);
            }
            Packet::Subscribe { id, filters } => self.subscribe(conn, &who, version, id, &filters),
            Packet::Unsubscribe { id, filters } => {
                if let Some(session) = self.sessions.get_mut(&who) {
                    filters.iter().for_each(|filter| session.unsubscribe(filter));
                }
                let bytes = packet::unsuback(version, id, filters.len());
                self.out.push(Output::Send(conn, bytes));
            }
            Packet::Publish(publish) => self.publish(conn, &who, version, &publish),
            Packet::Connect(_) => {}
        }
    }

    /// What the real cloud would not have taken.
    fn breach(&mut self, conn: Conn, code: u8, why: &'static str) {
        tracing::info!(conn, why, "the cloud closes a connection");
        self.counters.breaches.add();
        self.close(conn, code);
    }

    fn connect(&mut self, conn: Conn, connect: &Connect) {
        self.counters.attempt(&connect.client_id, self.now_ms);
        let version = connect.version;
        let client = self
            .clients
            .get_mut(&conn)
            .expect("whoever says something is connected");
        client.version = version;
        client.keep_alive_ms = u64::from(connect.keep_alive_s) * 1_000;
        let tls = client.tls.clone();
        if self.faults.hangs(self.now_ms, Stage::Connack) {
            client.state = State::Hung;
            return self.counters.swallowed.add();
        }
        let admitted = self.ask(false, |personality, cx| personality.connect(cx, connect, tls.as_ref()));
        let who = match admitted {
            Ok(Admitted { who }) => who,
            Err(Refused::Close(why)) => {
                self.counters.refused.add();
                return self.breach(conn, 0, why);
            }
            Err(Refused::Code(code, why)) => return self.refuse(conn, version, code, why),
        };
        let denied = self.faults.denies(self.now_ms, Stage::Connack, Of::Gateway, &who);
        if let Some(code) = denied {
            self.counters.denied.add();
            return self.refuse(conn, version, code as u8, "a fault");
        }
        self.counters.logins.add();
        self.admit(conn, who, connect);
    }

    fn refuse(&mut self, conn: Conn, version: u8, code: u8, why: &'static str) {
        tracing::info!(conn, code, why, "the cloud refuses a login");
        self.counters.refused.add();
        let code = if version == 5 { connack_code_5(code) } else { code };
        self.out
            .push(Output::Send(conn, packet::connack(version, false, code, &[])));
        self.close(conn, 0);
    }

    fn admit(&mut self, conn: Conn, who: String, connect: &Connect) {
        let version = connect.version;
        if let Some(other) = self.sessions.get(&who).and_then(|session| session.conn) {
            self.counters.taken_over.add();
            self.close(other, TAKEN_OVER);
        }
        let kept_ms = (u64::from(connect.session_s) * 1_000).min(self.rules.session_ms_max) / self.times;
        if connect.clean {
            self.sessions.remove(&who);
        }
        let present = self.sessions.contains_key(&who);
        let properties = self.rules.connack_properties;
        self.out
            .push(Output::Send(conn, packet::connack(version, present, 0, properties)));
        let now_ms = self.now_ms;
        let session = self
            .sessions
            .entry(who.clone())
            .or_insert_with(|| Session::new(conn, version, kept_ms));
        session.kept_ms = kept_ms;
        let again = if present {
            session.resume(conn, version, now_ms)
        } else {
            Vec::new()
        };
        self.out
            .extend(again.into_iter().map(|bytes| Output::Send(conn, bytes)));
        if let Some(client) = self.clients.get_mut(&conn) {
            client.state = State::In(who.clone());
        }
        if self.faults.closes_after(now_ms, Stage::Connack) {
            return self.close(conn, 0);
        }
        self.pump(&who);
    }

    fn subscribe(&mut self, conn: Conn, who: &str, version: u8, id: u16, filters: &[(String, u8)]) {
        if filters.len() > self.rules.filters_max {
            return self.breach(conn, 0x82, "too many filters in one SUBSCRIBE");
        }
        if self.faults.hangs(self.now_ms, Stage::Suback) {
            return self.counters.swallowed.add();
        }
        let failed = |code: u8| if version == 5 { code } else { 0x80 };
        let mut codes = Vec::new();
        for (filter, qos) in filters {
            let Some(session) = self.sessions.get_mut(who) else {
                return;
            };
            if let Some(code) = self.faults.denies(self.now_ms, Stage::Suback, Of::Gateway, who) {
                self.counters.denied.add();
                codes.push(failed(code as u8));
            } else if let Err(code) = self.personality.may_subscribe(who, filter) {
                if self.rules.closes_on_denied_subscription && version != 5 {
                    return self.breach(conn, 0, "a subscription that is not allowed");
                }
                self.counters.breaches.add();
                codes.push(failed(code));
            } else if session.filters.len() >= self.rules.subscriptions_max {
                if self.rules.closes_beyond_subscriptions {
                    return self.breach(conn, 0x97, "too many subscriptions");
                }
                self.counters.breaches.add();
                codes.push(failed(0x97));
            } else {
                session.subscribe(filter, (*qos).min(1));
                codes.push((*qos).min(1));
            }
        }
        self.out.push(Output::Send(conn, packet::suback(version, id, &codes)));
        if self.faults.closes_after(self.now_ms, Stage::Suback) {
            return self.close(conn, 0);
        }
        self.ask(false, |personality, cx| personality.subscribed(cx, who));
        self.pump(who);
    }

    fn publish(&mut self, conn: Conn, who: &str, version: u8, publish: &Publish) {
        self.counters.messages.add();
        if publish.qos == 2 {
            if self.rules.closes_on_qos_2 {
                self.breach(conn, 0x9b, "QoS 2");
            } else {
                self.counters.breaches.add();
            }
            return;
        }
        if publish.qos == 1 && self.faults.hangs(self.now_ms, Stage::Puback) {
            return self.counters.swallowed.add();
        }
        if let Some(code) = self.faults.denies(self.now_ms, Stage::Puback, Of::Gateway, who) {
            self.counters.denied.add();
            if version != 5 {
                return self.close(conn, 0);
            }
            return self.acknowledge(conn, version, publish, code as u8);
        }
        let throttled = self.is_throttled(who);
        match self.ask(throttled, |personality, cx| personality.publish(cx, who, publish)) {
            Taken::Yes => self.acknowledge(conn, version, publish, 0),
            Taken::Code(code) => self.acknowledge(conn, version, publish, code),
            Taken::Dropped(code) if version == 5 => self.acknowledge(conn, version, publish, code),
            Taken::Dropped(_) => self.counters.swallowed.add(),
            Taken::Forbidden(code, _) if version == 5 => {
                self.counters.breaches.add();
                self.acknowledge(conn, version, publish, code);
            }
            Taken::Forbidden(code, why) => return self.breach(conn, code, why),
            Taken::Close(code, why) => return self.breach(conn, code, why),
        }
        if publish.qos == 1 && self.faults.closes_after(self.now_ms, Stage::Puback) {
            self.close(conn, 0);
        }
    }

    fn acknowledge(&mut self, conn: Conn, version: u8, publish: &Publish, code: u8) {
        if publish.qos == 1 && self.clients.contains_key(&conn) {
            let bytes = packet::puback(version, publish.id, code);
            self.out.push(Output::Send(conn, bytes));
        }
    }

    fn is_throttled(&mut self, who: &str) -> bool {
        let rate = self.faults.find(self.now_ms, |fault| match fault {
            Fault::Throttle(rate) => Some(*rate),
            _ => None,
        });
        let Some(rate) = rate else {
            self.allowances.forget();
            return false;
        };
        let throttled = !self.allowances.allows(who, rate, self.now_ms);
        if throttled {
            self.counters.throttled.add();
        }
        throttled
    }

    /// The cloud's own word, under the faults of its stage.
    fn reply(&mut self, who: String, message: Message, unasked: bool) {
        if self.faults.hangs(self.now_ms, Stage::Reply) {
            return self.counters.swallowed.add();
        }
        let percent = |pick: fn(&Fault) -> Option<u8>| self.faults.find(self.now_ms, pick).unwrap_or(0);
        let dropped = percent(|fault| match fault {
            Fault::DropReply(percent) => Some(*percent),
            _ => None,
        });
        let doubled = percent(|fault| match fault {
            Fault::DupReply(percent) => Some(*percent),
            _ => None,
        });
        if self.rng.u8(0..100) < dropped {
            return self.counters.swallowed.add();
        }
        let times = if self.rng.u8(0..100) < doubled { 2 } else { 1 };
        let delay = self.faults.find(self.now_ms, |fault| match fault {
            Fault::Delay { least_ms, most_ms } => Some((*least_ms, *most_ms)),
            _ => None,
        });
        for _ in 0..times {
            let (who, message) = (who.clone(), message.clone());
            match delay {
                None if self.delayed.is_empty() => self.deliver(&who, message, unasked),
                delay => {
                    let wait_ms = delay.map_or(0, |(least, most)| self.rng.u64(least..=most));
                    // Nothing overtakes: it is one connection.
                    let before_ms = self.delayed.back().map_or(0, |(at_ms, ..)| *at_ms);
                    let at_ms = before_ms.max(self.now_ms + wait_ms);
                    self.delayed.push_back((at_ms, who, message, unasked));
                }
            }
        }
        if self.faults.closes_after(self.now_ms, Stage::Reply)
            && let Some(conn) = self.sessions.get(&who).and_then(|session| session.conn)
        {
            self.close(conn, 0);
        }
    }

    fn deliver(&mut self, who: &str, message: Message, unasked: bool) {
        let Some(session) = self.sessions.get_mut(who) else {
            return;
        };
        let wanted = session.wants(&message.topic).or(unasked.then_some(1));
        if let Some(qos) = wanted
            && session.add(message, qos)
        {
            self.pump(who);
        }
    }

    fn pump(&mut self, who: &str) {
        if self.faults.hangs(self.now_ms, Stage::Tcp) {
            return;
        }
        let Some(session) = self.sessions.get_mut(who) else {
            return;
        };
        let Some(conn) = session.conn else { return };
        let sent = session.pump(self.now_ms, self.rules.stored_a_second);
        self.out.extend(sent.into_iter().map(|bytes| Output::Send(conn, bytes)));
    }

    fn tick(&mut self) {
        let now_ms = self.now_ms;
        while self.delayed.front().is_some_and(|(at_ms, ..)| *at_ms <= now_ms) {
            if let Some((_, who, message, unasked)) = self.delayed.pop_front() {
                self.deliver(&who, message, unasked);
            }
        }
        let over = |session: &Session| session.conn.is_none() && now_ms >= session.left_ms + session.kept_ms;
        self.sessions.retain(|_, session| !over(session));
        let stored = self.sessions.iter().filter(|(_, session)| session.due_ms().is_some());
        let stored: Vec<String> = stored.map(|(who, _)| who.clone()).collect();
        stored.iter().for_each(|who| self.pump(who));
        self.end_connections();
    }

    /// Ends connections whose time is over, for one reason or another.
    fn end_connections(&mut self) {
        let now_ms = self.now_ms;
        if self.faults.hangs(now_ms, Stage::Tcp) {
            return;
        }
        let dark = self.faults.closes_after(now_ms, Stage::Tcp);
        let period_ms = self.faults.find(now_ms, |fault| match fault {
            Fault::Takeover(period_ms) => Some(*period_ms),
            _ => None,
        });
        let stranger = period_ms.is_some_and(|period_ms| now_ms >= self.stranger_ms + period_ms);
        if stranger {
            self.stranger_ms = now_ms;
        }
        let mut ended = Vec::new();
        for (conn, client) in &self.clients {
            let silent = client.keep_alive_ms > 0 && now_ms >= client.heard_ms + client.keep_alive_ms * 3 / 2;
            let code = match &client.state {
                _ if dark => 0,
                State::In(_) if stranger => TAKEN_OVER,
                State::In(who) if self.faults.kicks(now_ms, who) => NOT_AUTHORIZED,
                State::In(_) if silent => SILENT,
                State::In(_) | State::Fresh | State::Hung => continue,
            };
            ended.push((*conn, code));
        }
        for (conn, code) in ended {
            if code == TAKEN_OVER {
                self.counters.taken_over.add();
            }
            self.close(conn, code);
        }
    }
}
