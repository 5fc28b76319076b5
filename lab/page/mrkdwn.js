// Slack's mrkdwn as DOM nodes. Everything from a message becomes a text node or an attribute that is checked here;
// nothing is ever parsed as HTML.
import { EMOJI, withDrawnEmoji } from "/page/emoji.js";

const INLINE = new RegExp(
  [
    "`(?<code>[^`\\n]+)`",
    "<(?<angle>[^<>\\n]+)>",
    "(?<![\\w*])\\*(?<bold>[^*\\s](?:[^*\\n]*[^*\\s])?)\\*(?![\\w*])",
    "(?<![\\w_])_(?<italic>[^_\\s](?:[^_\\n]*[^_\\s])?)_(?![\\w_])",
    "(?<![\\w~])~(?<strike>[^~\\s](?:[^~\\n]*[^~\\s])?)~(?![\\w~])",
    ":(?<emoji>[a-z0-9_+\\-]+):",
  ].join("|"),
  "gu",
);

export function element(tag, className = "", ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

export const unescaped = (text) => text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");

const shortcodes = (text) => text.replace(/:([a-z0-9_+-]+):/g, (all, name) => EMOJI[name] ?? all);

/** A text object of either kind. */
export function textNode(object, nameOf) {
  if (object.type === "plain_text") {
    return element("div", "text", ...lines(object.emoji === false ? object.text : shortcodes(object.text)));
  }
  return mrkdwn(object.text, nameOf);
}

function lines(text) {
  return text.split("\n").flatMap((line, index) => [...(index ? [document.createElement("br")] : []), ...withDrawnEmoji(line)]);
}

/** mrkdwn with code blocks, quotes and inline marks; `nameOf` turns a user id into a name. */
export function mrkdwn(text, nameOf) {
  const out = element("div", "text");
  text.split(/```([\s\S]*?)```/).forEach((part, index) => {
    if (index % 2) out.append(codeBlock(part));
    else if (part.trim() || (part && index === 0)) prose(index ? part.replace(/^\n/, "") : part, out, nameOf);
  });
  return out;
}

function prose(text, out, nameOf) {
  let quote = null;
  let first = true;
  for (const line of text.replace(/\n$/, "").split("\n")) {
    const quoted = line.match(/^(?:&gt;|>) ?(.*)$/);
    if (quoted) {
      if (quote) quote.append(document.createElement("br"));
      else out.append((quote = element("blockquote")));
      inline(quoted[1], quote, nameOf);
    } else {
      if (!first && !quote) out.append(document.createElement("br"));
      quote = null;
      inline(line, out, nameOf);
    }
    first = false;
  }
}

function inline(text, out, nameOf) {
  let last = 0;
  for (const match of text.matchAll(INLINE)) {
    const { code, angle, bold, italic, strike, emoji } = match.groups;
    const node =
      code !== undefined ? element("code", "", unescaped(code))
      : angle !== undefined ? reference(angle, nameOf)
      : emoji !== undefined ? (EMOJI[emoji] ?? match[0])
      : marked(bold !== undefined ? "strong" : italic !== undefined ? "em" : "s", bold ?? italic ?? strike, nameOf);
    out.append(...withDrawnEmoji(unescaped(text.slice(last, match.index))), ...(typeof node === "string" ? withDrawnEmoji(node) : [node]));
    last = match.index + match[0].length;
  }
  out.append(...withDrawnEmoji(unescaped(text.slice(last))));
}

function marked(tag, text, nameOf) {
  const node = element(tag);
  inline(text, node, nameOf);
  return node;
}

/** What stands in angle brackets: a link, a person, a channel or a broadcast. */
function reference(content, nameOf) {
  const [target, label] = splitOnce(content, "|");
  if (/^https?:\/\//i.test(target)) return link(unescaped(target), unescaped(label ?? target));
  if (target.startsWith("@")) return element("span", "mention", "@" + (label ?? nameOf(target.slice(1))));
  if (/^[#!]/.test(target)) return element("span", "mention", label ?? target);
  return unescaped(`<${content}>`);
}

export function link(address, label) {
  const node = element("a", "", label);
  node.href = address;
  node.target = "_blank";
  node.rel = "noopener noreferrer";
  return node;
}

function splitOnce(text, separator) {
  const at = text.indexOf(separator);
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)];
}

/** A preformatted block, line by line; coloured when it reads as a diff. */
function codeBlock(raw) {
  const rows = unescaped(raw.replace(/^\n/, "").replace(/\n$/, "")).split("\n");
  const isDiff = rows.some((row) => /^(\+(?!\+\+)|@@)/.test(row)) || rows.some((row) => /^-(?!--)\S/.test(row));
  const pre = element("pre");
  for (const row of rows) {
    const kind = !isDiff ? "" : /^(\+\+\+|---|@@)/.test(row) ? "hunk" : row[0] === "+" ? "add" : row[0] === "-" ? "del" : "";
    pre.append(element("span", kind, row || " "));
  }
  return pre;
}

/** The common part of Markdown, for `markdown` blocks: turned into mrkdwn, which is drawn above. */
export function markdown(text, nameOf) {
  const escaped = text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const fences = escaped.split(/(```[\s\S]*?```)/).map((part, index) => (index % 2 ? part.replace(/^```\w*\n/, "```") : marks(part)));
  return mrkdwn(fences.join(""), nameOf);
}

function marks(text) {
  return text
    .replace(/^#{1,6} +(.+)$/gm, "*$1*")
    .replace(/\*\*([^*\n]+)\*\*/g, "*$1*")
    .replace(/^(\s*)[-*] +/gm, "$1• ")
    .replace(/\[([^\]\n]+)\]\((https?:\/\/[^\s)]+)\)/g, "<$2|$1>");
}
