// The page: one channel, one thread, one identity at a time. It asks for changes twice a second and sends what people do.
import { messageBody } from "/page/blocks.js";
import { element, textNode } from "/page/mrkdwn.js";
import { watchState } from "/page/state.js";

const ASK_EVERY_MS = 500;
const COLOURS = ["#7a5c99", "#2f6fa8", "#a8622f", "#8d3b4a", "#4b7a3a"];
const COMMANDS = ["/oncall help", "/oncall status", "/oncall runbook first token slow"];

const $ = (id) => document.getElementById(id);
const wishes = new URLSearchParams(location.search);
const me = { person: wishes.get("as") ?? recall("person") ?? "alice", thread: wishes.get("thread"), closed: new Set(), seen: false };
const names = new Map();
let people = [];
let channel = null;
let version = -1;

function recall(name) {
  try { return localStorage.getItem(name); } catch { return null; }
}
function remember(name, value) {
  try { localStorage.setItem(name, value); } catch { /* private windows keep nothing */ }
}

async function getJson(address) {
  const response = await fetch(address, { headers: { Accept: "application/json" } });
  if (!response.ok) throw new Error(`${address}: ${response.status}`);
  return response.json();
}

async function post(address, body) {
  try {
    const response = await fetch(address, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    const answer = await response.json();
    if (!response.ok) toast(trouble(answer));
    return response.ok;
  } catch {
    toast("The lab itself does not answer. Is it still running?");
    return false;
  }
}

function trouble(answer) {
  const known = {
    connection_failed: "Watchkeeper is not reachable just now. Try again in a moment.",
    http_timeout: "Watchkeeper did not answer within three seconds. Try again.",
    http_error: `Watchkeeper answered with an error (${answer.status}).`,
    no_such_element: "This button is no longer on the message.",
    no_such_option: "This choice is no longer offered.",
    message_not_found: "This message is gone.",
  };
  return known[answer.error] ?? `Slack refused: ${answer.error}`;
}

function toast(text) {
  const node = element("div", "toast", text);
  $("toasts").append(node);
  setTimeout(() => node.remove(), 6000);
}

// -- who you are ----------------------------------------------------------------------------------------------------

function avatar(name, slack, small = false) {
  const node = element("span", `avatar${small ? " small" : ""}`);
  if (slack === names.bot) {
    const icon = element("img");
    icon.src = "/page/icon.svg";
    icon.alt = "";
    node.append(icon);
    return node;
  }
  node.textContent = name.split(" ").map((part) => part[0]).join("").slice(0, 2);
  node.style.background = COLOURS[Math.max(0, people.findIndex((person) => person.slack === slack)) % COLOURS.length];
  return node;
}

function drawPeople() {
  $("people").replaceChildren(...people.map((person) => {
    const node = element("button", "", avatar(person.name, person.slack, true), person.name.split(" ")[0]);
    node.type = "button";
    node.title = `${person.name}: ${person.title}`;
    node.setAttribute("role", "radio");
    node.setAttribute("aria-checked", String(person.id === me.person));
    node.addEventListener("click", () => become(person.id));
    return node;
  }));
  $("role").textContent = people.find((person) => person.id === me.person)?.title ?? "";
}

function become(person) {
  me.person = person;
  remember("person", person);
  version = -1;
  drawPeople();
  look();
}

// -- messages -------------------------------------------------------------------------------------------------------

const clock = (ts) => new Date(Number(ts) * 1000).toISOString().slice(11, 19);
const nameOf = (slack) => names.get(slack) ?? slack;

function messageNode(message, inThread) {
  const node = element("article", `message${message.only_visible_to_you ? " private" : ""}`);
  if (message.only_visible_to_you) node.append(element("div", "private-label", "Only visible to you"));
  const time = element("time", "", clock(message.ts));
  time.title = "lab time, UTC";
  const head = element("div", "head", element("span", "name", message.author));
  if (message.bot_id) head.append(element("span", "badge", "APP"));
  head.append(time);
  if (message.edited) head.append(element("span", "edited", "(edited)"));
  const world = { nameOf, enlarge, act: (...what) => act(message, ...what) };
  const content = element("div", "", head, messageBody(message, world));
  if (message.only_visible_to_you) content.append(dismissal(message));
  if (!inThread && message.replies.length) content.append(repliesNode(message));
  node.append(avatar(message.author, message.user), content);
  return node;
}

function dismissal(message) {
  const node = element("button", "dismiss", "Dismiss message");
  node.type = "button";
  node.addEventListener("click", () => { me.closed.add(message.ts); draw(); });
  return node;
}

function repliesNode(message) {
  const count = message.replies.length;
  const node = element("button", "replies", `${count} ${count === 1 ? "reply" : "replies"}`, " ›");
  node.type = "button";
  node.addEventListener("click", () => openThread(message.ts));
  return node;
}

/** Put messages into a log, keeping the nodes of those that did not change, and the place where somebody reads. */
function fill(log, messages, inThread) {
  if (!log.firstChild?.classList?.contains("inner")) log.replaceChildren(element("div", "inner"));
  const inner = log.firstChild;
  const wasAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  const before = new Map([...inner.children].map((node) => [node.dataset.key, node]));
  const isFirst = before.size === 0;
  const known = new Set([...before.values()].map((node) => node.dataset.ts));
  const nodes = messages.map((message) => {
    const key = `${me.person} ${inThread} ${JSON.stringify(message)}`;
    const kept = before.get(key);
    if (kept) return kept;
    const node = messageNode(message, inThread);
    node.dataset.key = key;
    node.dataset.ts = message.ts;
    if (!isFirst && !known.has(message.ts)) node.classList.add("fresh");
    return node;
  });
  if (inThread && nodes.length > 1) nodes.splice(1, 0, rule(nodes.length - 1));
  inner.replaceChildren(...nodes);
  const newest = nodes.at(-1);
  // An edit never moves the page under somebody who reads; a new message comes into view where the end was in view.
  if (!isFirst && wasAtEnd && newest && !known.has(newest.dataset.ts)) {
    newest.scrollIntoView({ block: newest.offsetHeight > log.clientHeight ? "start" : "end" });
  }
}

function rule(count) {
  const node = element("div", "rule", `${count} ${count === 1 ? "reply" : "replies"}`);
  node.dataset.key = `rule ${count}`;
  return node;
}

function draw() {
  if (!channel) return;
  const open = (message) => !me.closed.has(message.ts);
  const messages = channel.messages.filter(open);
  if (messages.length) fill($("log"), messages, false);
  else $("log").replaceChildren(element("div", "empty", element("strong", "", "Nothing here yet."), "When the alert fires, PagerDuty pages, and Watchkeeper’s card appears here."));
  const parent = messages.find((message) => message.ts === me.thread);
  $("thread").hidden = !parent;
  $("workspace").classList.toggle("with-thread", Boolean(parent));
  if (parent) fill($("thread-log"), [parent, ...parent.replies.filter(open)].map((m, i) => (i ? m : { ...m, replies: [], blocks: m.blocks?.filter((block) => ["header", "context"].includes(block.type)).slice(0, 2) })), true);
}

function openThread(ts) {
  me.thread = ts;
  me.seen = true;
  $("thread-log").replaceChildren();
  draw();
}

/** The first card's thread opens by itself where there is room: its evidence is what people should read. */
function openFirstThread() {
  const card = channel.messages.findLast((message) => message.bot_id && message.replies.length);
  if (!me.seen && card && window.innerWidth > 1000) openThread(me.thread ?? card.ts);
}

// -- doing ----------------------------------------------------------------------------------------------------------

async function act(message, block, item, value, node) {
  if (item.confirm && !(await confirmed(item.confirm))) return;
  node.disabled = true;
  const wish = { channel: channel.channel.id, ts: message.ts, action_id: item.action_id, block_id: block.block_id };
  await post(`/people/${me.person}/click`, value === undefined ? wish : { ...wish, value });
  node.disabled = false;
  look();
}

function confirmed(wish) {
  const dialog = $("confirm");
  $("confirm-title").textContent = wish.title.text;
  $("confirm-text").replaceChildren(textNode(wish.text, nameOf));
  $("confirm-yes").textContent = wish.confirm.text;
  $("confirm-yes").className = `button ${wish.style ?? "primary"}`;
  $("confirm-no").textContent = wish.deny.text;
  return new Promise((decided) => {
    const answer = (isYes) => { dialog.close(); decided(isYes); };
    $("confirm-yes").onclick = () => answer(true);
    $("confirm-no").onclick = () => answer(false);
    dialog.oncancel = () => decided(false);
    dialog.showModal();
  });
}

function enlarge(address, alt) {
  $("picture-large").src = address;
  $("picture-large").alt = alt ?? "";
  $("picture").showModal();
}

async function write(input, threadTs) {
  const text = input.value.trim();
  if (!text) return;
  input.value = "";
  const done = text.startsWith("/")
    ? await post(`/people/${me.person}/command`, { text })
    : await post(`/people/${me.person}/message`, { text, thread_ts: threadTs ?? "" });
  if (!done && !input.value) input.value = text;
  look();
}

// -- keeping up -----------------------------------------------------------------------------------------------------

async function look() {
  const asked = me.person;
  const seen = await getJson(`/channel?person=${encodeURIComponent(asked)}&since=${version}`);
  if (seen.unchanged || asked !== me.person) return;
  version = seen.version;
  channel = seen;
  $("topic").textContent = seen.channel.topic.value;
  draw();
  openFirstThread();
}

async function keepLooking() {
  try { await look(); document.body.classList.remove("lost"); } catch { version = -1; }
  setTimeout(keepLooking, ASK_EVERY_MS);
}

function dress() {
  const wished = wishes.get("theme") ?? recall("theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.documentElement.dataset.theme = wished;
  $("theme").addEventListener("click", () => {
    const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    remember("theme", next);
  });
}

async function start() {
  dress();
  const cast = await getJson("/people");
  people = cast.people;
  for (const person of people) names.set(person.slack, person.name);
  names.set(cast.app.slack, cast.app.name);
  names.bot = cast.app.slack;
  if (!people.some((person) => person.id === me.person)) me.person = people[0].id;
  drawPeople();
  $("suggestions").append(...COMMANDS.map((line) => {
    const node = element("button", "", line);
    node.type = "button";
    node.addEventListener("click", () => { $("line").value = line; $("line").focus(); });
    return node;
  }));
  $("composer").addEventListener("submit", (event) => { event.preventDefault(); write($("line")); });
  $("thread-composer").addEventListener("submit", (event) => { event.preventDefault(); write($("thread-line"), me.thread); });
  $("close-thread").addEventListener("click", () => { me.thread = null; me.seen = true; draw(); });
  $("picture").addEventListener("click", () => $("picture").close());
  watchState(getJson);
  keepLooking();
}

start();
