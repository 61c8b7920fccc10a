"use strict";
// Shows what the gateway tells as it happens. Text is put in as text, never as markup; nothing is kept but the language.
(() => {
  const SILENCE_MS = 12000; // The gateway says something every five seconds.
  const AGAIN_MS = 3000;
  const $ = (id) => document.getElementById(id);
  const state = { lang: "en", me: null, now: null, view: null, day: null, heardMs: 0, cut: false, offsetMs: null, shown: {} };

  // ------------------------------------------------------------ words, numbers, times
  const fill = (text, parts) => text.replace(/\{(\d)\}/g, (_, i) => String(parts[Number(i)] ?? ""));
  const has = (key) => Object.hasOwn(WORDS[state.lang], key);
  const t = (key, ...parts) => fill(has(key) ? WORDS[state.lang][key] : key, parts);
  const named = (prefix, word, other) => (has(prefix + word) ? t(prefix + word) : t(prefix + other));

  const CURRENCIES = { 156: ["¥", 2], 392: ["¥", 0], 344: ["HK$", 2], 410: ["₩", 0], 702: ["S$", 2], 826: ["£", 2], 840: ["$", 2], 978: ["€", 2] };
  function money(minor) {
    if (minor === null || minor === undefined) return "–";
    const [sign, digits] = CURRENCIES[state.view.money.currency] ?? [`${state.view.money.currency} `, 2];
    const major = (Math.abs(minor) / 10 ** digits).toLocaleString(state.lang, { minimumFractionDigits: digits, maximumFractionDigits: digits });
    return `${minor < 0 ? "−" : ""}${sign}${major}`;
  }
  function quantity(kind, units) {
    const thousandth = (units / 1000).toLocaleString(state.lang, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
    if (kind === "charger") return t("kWh", thousandth);
    return kind === "dispenser" ? t("litre", thousandth) : t("cycle", units);
  }
  const count = (n) => Number(n).toLocaleString(state.lang);

  const two = (n) => String(n).padStart(2, "0");
  const local = (wallS) => new Date((wallS + state.me.offset_min * 60) * 1000);
  const clock = (wallS) => { const d = local(wallS); return `${two(d.getUTCHours())}:${two(d.getUTCMinutes())}`; };
  function moment(wallS) {
    if (wallS === null || wallS === undefined) return "?";
    const [d, today] = [local(wallS), state.now.wall_s === null ? null : local(state.now.wall_s)];
    const isToday = today !== null && d.getUTCDate() === today.getUTCDate() && Math.abs(today - d) < 864e5;
    return isToday ? clock(wallS) : `${two(d.getUTCMonth() + 1)}-${two(d.getUTCDate())} ${clock(wallS)}`;
  }
  // A moment of the gateway's own clock, on the wall; before the clock was set, how long ago.
  function since(atMs) {
    if (state.offsetMs !== null) return moment(Math.floor((atMs + state.offsetMs) / 1000));
    return `−${Math.round((state.now.at_ms - atMs) / 60000)} min`;
  }

  function h(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes ?? {})) {
      if (name === "on") element.addEventListener("click", value);
      else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }
  const tag = (level, text) => h("span", { class: `tag ${level}` }, text);
  function setText(element, text) { if (element.textContent !== text) element.textContent = text; }
  // Draws a part only when what it shows has changed: focus, selection and open details stay.
  function part(id, data, draw) {
    const key = JSON.stringify([state.lang, data]);
    if (state.shown[id] === key) return;
    state.shown[id] = key;
    $(id).replaceChildren(...draw(data));
  }

  // ------------------------------------------------------------ what the cloud is worth
  const LEVELS = { ONLINE: "ok", SUSPECT: "warn", LOCAL: "bad", RECOVERING: "warn" };
  const LETTERS = { authorize: "a", commit: "b", control: "c" };
  function reason(row) {
    const cloud = state.view.clouds.find((one) => one.goes_first) ?? state.view.clouds[0];
    const isFailing = row.mode === "LOCAL" || row.mode === "SUSPECT";
    if (isFailing && cloud && cloud.stage === "down") return t("r_down");
    if (row.capability === "authorize" && cloud?.trouble && ["denied", "claimed", "billing"].includes(cloud.trouble_class) && /^(Canaries(Wrong|Silent)|Failed|Denied)/.test(row.signal ?? "")) {
      const said = cloud.trouble.replace(/^[a-z-]+: /, "");
      return t("r_said", /not.?found|inactive|access.?key/i.test(said) ? t("r_no_key") : said);
    }
    return named("s_", row.signal, "other");
  }
  const sentence = (row) => t(`${LETTERS[row.capability]}_${row.mode}`, reason(row), since(row.since_ms));

  function drawNow() {
    const view = state.view;
    const [authorize, commit, control] = view.modes;
    const busy = view.kinds.reduce((sum, kind) => sum + kind.sessions, 0);
    const inUse = t("in_use", count(busy));
    let [level, text] = ["ok", t("head_ok", inUse)];
    if (view.clouds.length === 0) text = t("head_alone", inUse);
    else if (authorize.mode === "LOCAL") [level, text] = ["bad", t("head_local", since(authorize.since_ms))];
    else if (authorize.mode === "RECOVERING") [level, text] = ["warn", t("head_recovering")];
    else if (["LOCAL", "RECOVERING"].includes(commit.mode)) [level, text] = ["bad", t("head_books", since(commit.since_ms))];
    else if (["LOCAL", "RECOVERING"].includes(control.mode)) [level, text] = ["warn", t("head_control", since(control.since_ms))];
    else if (view.modes.some((row) => row.mode !== "ONLINE")) [level, text] = ["warn", t("head_suspect")];
    $("now").dataset.level = level;
    setText($("headline"), text);
    const rows = view.clouds.length === 0 ? [] : view.modes;
    part("modes", rows.map((row) => [row, sentence(row)]), (all) => all.flatMap(([row, words]) => [
      h("dt", { "data-mode": row.mode }, t(row.capability), " ", tag(LEVELS[row.mode], t(`m_${row.mode}`))), h("dd", {}, words),
    ]));
    const warnings = [view.mass_denial && t("w_mass"), view.disk_scarce && t("w_disk"), view.epoch_expected !== 0 && t("w_fenced", view.epoch_expected), state.now.wall_s === null && t("w_clock"), view.reload?.failed && t("w_reload", view.reload.why)].filter(Boolean);
    $("warnings").hidden = warnings.length === 0;
    part("warnings", warnings, (all) => all.map((text) => h("li", {}, text)));
  }

  // ------------------------------------------------------------ devices, money
  function drawKinds() {
    part("kinds", state.view.kinds, (kinds) => kinds.map((kind) => {
      const states = kind.states;
      const busy = states.busy + states.preparing;
      const bad = states.faulted + states.other;
      const words = [t("in_use", busy), t("free", states.free), bad && t("faulted", bad), states.updating && t("updating", states.updating), states.away && t("away", states.away), kind.silent && t("silent", kind.silent)].filter(Boolean);
      const bar = h("div", { class: "stack", "aria-hidden": "true" });
      for (const [name, n] of [["busy", busy], ["free", states.free], ["bad", bad]]) {
        const piece = h("i", { class: name });
        piece.style.width = `${(100 * n) / Math.max(kind.outlets, 1)}%`;
        bar.append(piece);
      }
      const connected = kind.connected === null ? t("connected_unknown", 0, kind.devices) : t("connected", count(kind.connected), count(kind.devices));
      return h("div", { class: "kind", "data-kind": kind.kind }, h("h3", {}, t(kind.kind)), ...(kind.devices === 0 ? [h("p", { class: "hint" }, t("none_of_kind"))] : [h("p", {}, connected), bar, h("p", {}, words.join(t("list_sep")))]));
    }));
  }

  function drawMoney() {
    const { money: sums, outbox, list_tokens: tokens, list_revision: revision } = state.view;
    part("money", [sums, outbox, tokens, revision, state.offsetMs], () => {
      const share = Math.min(100, (100 * sums.exposure) / Math.max(sums.site_budget, 1));
      const fillBar = h("i", { class: share >= 80 ? "high" : null });
      fillBar.style.width = `${share}%`;
      const rows = [
        h("dt", {}, t("exposure", money(sums.site_budget)), h("div", { class: "meter", "aria-hidden": "true" }, fillBar)), h("dd", { id: "exposure" }, money(sums.exposure)),
        h("dt", {}, t("held")), h("dd", {}, money(sums.held)),
        h("dt", {}, t("waiting_records")), h("dd", { id: "waiting" }, count(outbox.waiting)),
      ];
      if (outbox.since_ms !== null) rows.push(h("dt", {}, t("waiting_since")), h("dd", {}, since(outbox.since_ms)));
      rows.push(h("dt", {}, t("receipted")), h("dd", {}, count(outbox.receipted)), h("dt", {}, t("tokens", revision)), h("dd", {}, count(tokens)));
      return rows;
    });
  }

  // ------------------------------------------------------------ the day
  const CAPABILITIES = ["authorize", "commit", "control"];
  // One span a mode and capability, and one for each time without the gateway.
  function spans(day, endS) {
    // A site's first day is not a day without the gateway: it begins with its first hour.
    const first = day.rows.find((row) => row.start === 1 && row.at_s !== null);
    const startS = first ? Math.max(endS - day.day_s, Math.min(Math.floor(first.at_s / 60) * 60, endS - 3600)) : endS - day.day_s;
    const open = CAPABILITIES.map((capability, i) => ({ capability, mode: day.before[i], fromS: startS, signal: null }));
    const [closed, absent] = [[], []];
    for (const row of day.rows) {
      if (row.at_s === null) continue;
      if (row.start !== undefined) { absent.push({ fromS: row.start === 1 ? startS : row.absent_since_s, toS: row.at_s, isFirst: row.start === 1 }); continue; }
      const i = CAPABILITIES.indexOf(row.capability);
      closed.push({ ...open[i], toS: row.at_s });
      open[i] = { capability: row.capability, mode: row.mode, fromS: row.at_s, signal: row.signal };
    }
    return { startS, lengthS: endS - startS, closed, open: open.map((span) => ({ ...span, toS: endS, isOpen: true })), absent };
  }

  function drawDay() {
    const { day, now } = state;
    if (day === null || now.wall_s === null) {
      part("day", [day === null], () => []);
      part("outages", [day === null], () => [h("li", {}, t(day === null ? "day_reading" : "w_clock"))]);
      return;
    }
    const endS = Math.ceil(now.wall_s / 60) * 60;
    const found = spans(day, endS);
    const place = (element, fromS, toS) => {
      const left = Math.max(0, (fromS - found.startS) / found.lengthS);
      element.style.left = `${100 * left}%`;
      element.style.width = `${100 * Math.max(0, Math.min(1, (toS - found.startS) / found.lengthS) - left)}%`;
      return element;
    };
    part("day", [day, endS], () => {
      const lanes = CAPABILITIES.map((capability) => {
        const track = h("div", { class: "track" });
        for (const span of [...found.closed, ...found.open].filter((one) => one.capability === capability)) track.append(place(h("i", { class: span.mode }), span.fromS, span.toS));
        for (const gap of found.absent.filter((one) => one.fromS !== null)) track.append(place(h("i", { class: "absent" }), gap.fromS, gap.toS));
        return h("div", { class: "lane" }, h("span", {}, t(capability)), track);
      });
      const hours = h("div", { class: "hours" });
      const zone = state.me.offset_min * 60;
      // About eight marks, each at a time that is round.
      const step = [600, 1800, 3600, 10800].find((s) => found.lengthS / s <= 8) ?? 10800;
      for (let at = Math.ceil((found.startS + zone) / step) * step - zone; at < endS - step / 4; at += step) {
        const label = h("b", {}, clock(at));
        label.style.left = `${Math.max(2, Math.min(98, (100 * (at - found.startS)) / found.lengthS))}%`;
        hours.append(label);
      }
      return [...lanes, h("div", { class: "lane" }, h("span", {}), hours)];
    });
    part("outages", [day, now.wall_s === null], () => {
      const rows = [...found.closed, ...found.open].filter((span) => span.mode === "LOCAL").map((span) => {
        const why = span.signal === null ? t("s_other") : named("s_", span.signal, "other");
        const words = span.isOpen ? t("o_on", t(span.capability), t("m_LOCAL"), moment(span.fromS), why) : t("o_over", t(span.capability), t("m_LOCAL"), moment(span.fromS), moment(span.toS), why);
        return { at: span.fromS, item: h("li", { class: span.isOpen ? "going-on" : null }, words) };
      });
      for (const gap of found.absent) {
        const words = gap.fromS === null || gap.isFirst ? t("o_start", moment(gap.toS)) : t("o_absent", moment(gap.fromS), moment(gap.toS));
        rows.push({ at: gap.toS, item: h("li", {}, words) });
      }
      if (day.left > 0) rows.push({ at: 0, item: h("li", { class: "hint" }, t("day_left", day.left)) });
      rows.sort((one, other) => other.at - one.at);
      return rows.length === 0 ? [h("li", {}, t("no_outage"))] : rows.map((row) => row.item);
    });
  }

  // ------------------------------------------------------------ sessions, devices
  const STATES = { refused: "bad", indeterminate: "warn", metering: "ok", held: "ok", asking: "off", closed: "off" };
  const short = (session) => `${session.slice(0, 8)}…${session.slice(-4)}`;
  function table(rows, caption) {
    if (rows.length === 0) return [h("p", { class: "hint" }, t("nobody"))];
    const head = [["t_device"], ["t_who", "less"], ["t_state"], ["t_since", "time"], ["t_units", "number less"], ["t_money", "number"], ["t_session", "less"]];
    const body = rows.map((row) => {
      const who = row.account === null ? t("card", row.token) : t("account", row.account);
      const paid = row.amount !== null ? money(row.amount) : row.hold === null ? "–" : t("upto", money(row.hold));
      const find = h("button", { type: "button", class: "text id", "aria-label": `${t("search")} ${row.session}`, on: () => explain(row.session) }, short(row.session));
      const why = h("button", { type: "button", class: "text", "aria-label": `${t("search")} ${row.device}`, on: () => explain(row.session) }, row.device);
      const word = row.refused === null ? t(`z_${row.state}`) : `${t("z_refused")}${state.lang === "zh" ? "：" : ": "}${named("e_", row.refused, "other")}`;
      return h("tr", { "data-session": row.session }, h("th", { scope: "row" }, why, row.outlet > 0 ? ` ${t("outlet", row.outlet)}` : ""), h("td", { class: "less" }, who), h("td", {}, tag(STATES[row.state], word), row.unsecured && row.amount === null ? h("span", {}, " ", tag("warn", t("risk"))) : null), h("td", { class: "time" }, since(row.since_ms)), h("td", { class: "number less" }, row.refused === null ? quantity(row.kind, row.units) : "–"), h("td", { class: "number" }, paid), h("td", { class: "less" }, find));
    });
    const line = h("tr", {}, ...head.map(([key, name]) => h("th", { scope: "col", class: name }, t(key))));
    return [h("table", { "aria-label": caption }, h("thead", {}, line), h("tbody", {}, ...body))];
  }
  function drawSessions() {
    const all = state.view.sessions;
    part("sessions", [all.open, all.open_left, state.offsetMs], () => [...table(all.open, t("sessions")), ...(all.open_left > 0 ? [h("p", { class: "hint" }, t("more", count(all.open_left)))] : [])]);
    part("ended", [all.ended, state.offsetMs], () => table(all.ended, t("ended")));
  }
  const OUTLETS = { free: "off", preparing: "ok", busy: "ok", faulted: "bad", updating: "warn", other: "warn" };
  function drawDevices() {
    const { rows, left } = state.view.devices;
    part("devices", rows, () => rows.map((row) => {
      const tags = row.outlets.map((outlet) => {
        const fault = outlet.fault === null ? "" : `${state.lang === "zh" ? "：" : ": "}${named("f_", outlet.fault, "Other")}`;
        return tag(OUTLETS[outlet.state], `${row.outlets.length > 1 ? `${outlet.outlet} ` : ""}${t(`p_${outlet.state}`)}${fault}`);
      });
      if (row.connected === false) tags.push(tag("warn", t("p_away")));
      else if (tags.length === 0) tags.push(tag("off", t("p_quiet")));
      return h("li", {}, h("button", { type: "button", class: "text", "aria-label": `${t("search")} ${row.device}`, on: () => explain(row.device) }, row.device), h("span", {}, ...tags));
    }));
    setText($("devices-left"), left > 0 ? t("devices_left", count(left)) : "");
  }

  // ------------------------------------------------------------ to decide
  function drawDecide() {
    const { aside, remarks, rings } = state.view;
    $("decide").hidden = aside.length === 0 && remarks.count === 0 && rings.length === 0;
    part("rings", rings, () => rings.map((row) => h("li", { "data-ring": row.what }, `${t(`ring_${row.what}`, row.revision)} ${t(`reach_${row.reach}`, row.reach === "kind" ? t(row.kind) : row.device)} ${t("ring_seen", count(row.requests), count(row.worse))}${row.held ? ` ${t("ring_held")}` : ""}`)));
    part("aside", [aside, state.me.csrf !== null], () => aside.flatMap((row) => [
      h("li", { "data-what": row.what }, h("span", {}, `${t(`aside_${row.what}`, row.revision)} ${t("aside_rest")}`), h("button", { type: "button", on: () => showDiff(row) }, t("show_diff"))),
    ]));
    if (aside.every((row) => row.what !== state.open?.what || row.revision !== state.open?.revision)) { state.open = null; $("diff").hidden = true; }
    part("remarks", remarks, () => (remarks.count === 0 ? [] : [
      h("p", {}, t("remarks", count(remarks.count))),
      h("ul", {}, ...remarks.rows.map((row) => h("li", {}, t("remark_row", row.record, named("x_", row.is, "other")))), ...(remarks.count > remarks.rows.length ? [h("li", {}, t("more", remarks.count - remarks.rows.length))] : [])),
    ]));
  }
  const limit = (name, value) => (/money|budget/.test(name) ? money(value) : count(value));
  function diffTable(what, diff) {
    if (what === "list") {
      const rows = [["d_tokens", `${count(diff.tokens_before)} → ${count(diff.tokens_after)}`], ...["joined", "left", "blocked", "unblocked", "users", "users_refused", "balances_zeroed"].map((name) => [`d_${name}`, count(diff[name])])];
      return [h("p", {}, `${t("d_why")}: `, h("span", { lang: "en" }, diff.why)), h("table", {}, h("tbody", {}, ...rows.map(([key, value]) => h("tr", {}, h("th", { scope: "row" }, t(key)), h("td", { class: "number" }, value)))))];
    }
    const isPolicy = what === "policy" || what === "config";
    const head = isPolicy ? ["class", "limit", "before", "after"] : ["kind", "before", "after"];
    const cell = (row, key) => (row[key] === null ? t("none") : has(row[key]) ? t(row[key]) : key === "before" || key === "after" ? (isPolicy ? limit(row.limit, row[key]) : row[key]) : row[key]);
    return [h("table", {}, h("thead", {}, h("tr", {}, ...head.map((key) => h("th", { scope: "col" }, t(key))))), h("tbody", {}, ...diff.map((row) => h("tr", {}, ...head.map((key) => h("td", {}, String(cell(row, key))))))))];
  }
  async function showDiff(row) {
    state.open = row;
    const box = $("diff");
    const answer = await fetch(`diff?what=${row.what}`).then((reply) => reply.json()).catch((error) => ({ error: String(error) }));
    box.hidden = false;
    if (answer.error) { box.replaceChildren(h("p", { lang: "en" }, answer.error)); return; }
    const leave = h("button", { type: "button", on: () => { state.open = null; box.hidden = true; } }, t("leave"));
    const decide = state.me.csrf === null ? [h("p", { class: "hint" }, t("w_look"))] : [h("p", {}, t("sure")), h("div", { class: "row" }, h("button", { type: "button", class: "act", id: "adopt", on: () => adopt(row) }, t("adopt", row.revision)), leave)];
    box.replaceChildren(...diffTable(row.what, answer), ...decide);
  }
  async function adopt(row) {
    const reply = await fetch("adopt", { method: "POST", headers: { "content-type": "application/json", "x-holdfast-csrf": state.me.csrf }, body: JSON.stringify({ what: row.what, revision: row.revision }) }).catch(() => null);
    const text = reply === null ? "" : await reply.text();
    $("diff").replaceChildren(h("p", { role: "status" }, reply?.ok ? t("adopted", row.revision) : text));
  }

  // ------------------------------------------------------------ why
  function translated(text) {
    const chinese = state.lang === "zh" ? inChinese(text) : null;
    return chinese === null ? h("span", { lang: "en" }, text) : h("span", {}, chinese);
  }
  async function explain(of) {
    $("of").value = of;
    const box = $("why");
    box.replaceChildren(h("p", { class: "hint" }, t("searching")));
    const reply = await fetch(`why?of=${encodeURIComponent(of.trim().toLowerCase())}`).catch(() => null);
    const text = reply === null ? "" : await reply.text();
    let why = null;
    try { why = JSON.parse(text); } catch { why = { error: text.trim() }; }
    state.why = why;
    drawWhy();
    box.focus({ preventScroll: true });
    box.scrollIntoView({ block: "nearest" });
  }
  function drawWhy() {
    const why = state.why;
    if (!why) return;
    if (why.error) { $("why").replaceChildren(h("p", {}, t("not_found", ""), h("span", { lang: "en" }, why.error))); return; }
    const decision = why.decision;
    const rule = decision && named("step_", decision.rule, "10");
    const verdict = !decision ? t("why_open") : decision.granted ? t("why_granted", decision.rule, rule) : t("why_refused", decision.rule, rule, named("e_", decision.reason, "other"));
    const at = why.request.at.wall_s ? moment(why.request.at.wall_s) : why.request.at.text;
    const lines = [h("p", { class: "verdict" }, verdict), h("p", { class: "id" }, why.session), h("p", {}, state.lang === "zh" ? t("why_asked", at, why.request.device, why.request.outlet) : t("why_asked", at, why.request.device, why.request.outlet))];
    if (decision) lines.push(h("p", {}, t("why_mode", `${t("authorize")}, ${t(`m_${decision.authorize}`)}`)));
    if (why.money) lines.push(h("p", {}, why.money.charged === null ? t("why_money_open", money(why.money.hold)) : t("why_money", money(why.money.hold), money(why.money.charged))));
    const walk = h("ol", {}, ...why.walk.map((step) => h("li", { class: step.decided ? "decided" : null }, `${step.step} · ${named("step_", step.step, "10")}`, h("br"), translated(step.text))));
    const course = h("table", { "aria-label": t("why_course") }, h("tbody", {}, ...why.course.map((row) => h("tr", {}, h("th", { scope: "row" }, row.at.wall_s ? moment(row.at.wall_s) : row.at.text), h("td", { lang: "en" }, row.text)))));
    $("why").replaceChildren(...lines, h("h3", {}, t("why_walk")), walk, h("details", {}, h("summary", {}, t("why_details")), h("p", { lang: "en" }, why.summary.join(" ")), course));
  }

  // ------------------------------------------------------------ live
  function drawClock() {
    if (state.now === null) return;
    const ageS = Math.floor((Date.now() - state.heardMs) / 1000);
    const wallS = state.now.wall_s === null ? null : state.now.wall_s + (state.cut ? 0 : ageS);
    setText($("clock"), wallS === null ? "" : `${local(wallS).toISOString().slice(0, 10)} ${clock(wallS)}`);
  }
  function drawLive() {
    const name = state.me === null ? "waiting" : state.cut ? "cut" : "live";
    const heard = state.now?.wall_s ? moment(state.now.wall_s) : "–";
    $("live").dataset.state = name;
    setText($("live"), t(name, heard));
    $("cut").hidden = !state.cut && !state.trouble;
    setText($("cut"), state.cut ? t("cut_long", heard) : state.trouble ? t("trouble", state.trouble) : "");
  }
  function draw() {
    for (const element of document.querySelectorAll("[data-t]")) setText(element, t(element.dataset.t));
    for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", t(element.dataset.label));
    for (const button of document.querySelectorAll("[data-lang]")) button.setAttribute("aria-pressed", String(button.dataset.lang === state.lang));
    drawLive();
    if (state.view === null) { setText($("headline"), t("loading")); return; }
    drawClock();
    document.title = `${state.me.site} · Holdfast`;
    setText($("site"), state.me.site);
    setText($("foot"), t("foot", state.me.version, state.me.gateway));
    $("logout").hidden = state.me.csrf === null;
    drawNow(); drawDecide(); drawKinds(); drawMoney(); drawDay(); drawSessions(); drawDevices();
  }
  function heard(now) {
    state.heardMs = Date.now();
    state.now = now;
    const offset = now.wall_s === null ? null : now.wall_s * 1000 - now.at_ms;
    // Seconds are cut off: a difference of one says nothing.
    if (offset === null || state.offsetMs === null || Math.abs(offset - state.offsetMs) > 2000) state.offsetMs = offset;
    [state.cut, state.trouble] = [false, null];
  }
  let source = null;
  function listen() {
    source = new EventSource("events");
    source.addEventListener("state", (event) => {
      const told = JSON.parse(event.data);
      [state.me, state.view, state.day] = [told.me, told.view, told.day];
      heard(told.now);
      draw();
    });
    source.addEventListener("now", (event) => { heard(JSON.parse(event.data)); if (state.view !== null) draw(); });
    source.addEventListener("trouble", (event) => { state.trouble = JSON.parse(event.data); state.heardMs = Date.now(); drawLive(); });
    source.addEventListener("error", async () => {
      cut();
      if (source.readyState !== EventSource.CLOSED) return; // It tries again by itself.
      const reply = await fetch("./", { redirect: "manual" }).catch(() => null);
      if (reply?.type === "opaqueredirect") location.assign("login");
      else setTimeout(listen, AGAIN_MS);
    });
  }
  function cut() { if (state.me !== null) { state.cut = true; } drawLive(); }
  setInterval(() => { if (Date.now() - state.heardMs > SILENCE_MS) cut(); drawClock(); }, 1000);

  // ------------------------------------------------------------ language
  function speak(lang, isChosen) {
    state.lang = lang;
    document.documentElement.lang = lang === "zh" ? "zh-CN" : "en";
    if (isChosen) {
      try { localStorage.setItem("lang", lang); } catch { /* Private browsing: for this page only. */ }
      const url = new URL(location.href);
      url.searchParams.set("lang", lang);
      history.replaceState(null, "", url);
    }
    draw();
    drawWhy();
    if (state.open) showDiff(state.open);
  }
  function kept() { try { return localStorage.getItem("lang"); } catch { return null; } }
  const wished = [new URLSearchParams(location.search).get("lang"), kept(), ...(navigator.languages ?? []).map((lang) => lang.slice(0, 2).toLowerCase())];
  for (const button of document.querySelectorAll("[data-lang]")) button.addEventListener("click", () => speak(button.dataset.lang, true));
  $("search").addEventListener("submit", (event) => { event.preventDefault(); if ($("of").value.trim() !== "") explain($("of").value); });
  speak(wished.find((lang) => lang !== null && Object.hasOwn(WORDS, lang)) ?? "en", false);
  listen();
})();
