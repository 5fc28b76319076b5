// Block Kit as DOM nodes. `act(block, element, value)` is called when somebody presses or chooses.
import { element, link, markdown, mrkdwn, textNode, unescaped } from "/page/mrkdwn.js";

/** The body of a message: its blocks, or its text when it has none, and its files. */
export function messageBody(message, world) {
  const body = element("div", "blocks");
  if (message.blocks?.length) body.append(...message.blocks.map((block) => blockNode(block, world)));
  else if (message.text) body.append(mrkdwn(message.text, world.nameOf));
  for (const file of message.files ?? []) body.append(fileNode(file, world));
  return body;
}

function blockNode(block, world) {
  const draw = {
    header: () => element("div", "block-header", textNode(block.text, world.nameOf)),
    section: () => section(block, world),
    context: () => context(block, world),
    actions: () => element("div", "block-actions", ...block.elements.map((item) => control(block, item, world))),
    divider: () => element("hr", "block-divider"),
    image: () => picture(addressOf(block), block.alt_text, block.title?.text, world),
    markdown: () => markdown(block.text, world.nameOf),
    rich_text: () => element("div", "text", ...block.elements.map((item) => richText(item, world))),
  }[block.type];
  return draw ? draw() : element("div", "unknown", `A block of the type “${block.type}”, which this page does not draw.`);
}

function section(block, world) {
  const grow = element("div", "grow");
  if (block.text) grow.append(textNode(block.text, world.nameOf));
  if (block.fields) grow.append(element("div", "fields", ...block.fields.map((field) => textNode(field, world.nameOf))));
  const node = element("div", "block-section", grow);
  if (block.accessory) node.append(block.accessory.type === "image" ? picture(addressOf(block.accessory), block.accessory.alt_text, "", world) : control(block, block.accessory, world));
  return node;
}

function context(block, world) {
  const node = element("div", "block-context");
  for (const item of block.elements) {
    node.append(item.type === "image" ? picture(addressOf(item), item.alt_text, "", world) : textNode(item, world.nameOf));
  }
  return node;
}

function control(block, item, world) {
  if (item.type === "button") return button(block, item, world);
  if (item.type === "static_select") return menu(block, item, world);
  return overflow(block, item, world);
}

function button(block, item, world) {
  const node = element("button", `button ${item.style ?? ""}`, item.text.text);
  node.type = "button";
  node.dataset.action = item.action_id;
  if (item.accessibility_label) node.ariaLabel = item.accessibility_label;
  node.addEventListener("click", () => {
    if (item.url && /^https?:\/\//i.test(item.url)) window.open(item.url, "_blank", "noopener");
    world.act(block, item, item.value, node);
  });
  return node;
}

function menu(block, item, world) {
  const node = element("select", "button");
  node.dataset.action = item.action_id;
  node.ariaLabel = item.placeholder?.text ?? "Choose";
  const first = new Option(item.placeholder?.text ?? "Choose…", "", true, !item.initial_option);
  first.disabled = true;
  node.append(first);
  const option = (choice) => new Option(unescaped(choice.text.text), choice.value, false, choice.value === item.initial_option?.value);
  for (const choice of item.options ?? []) node.append(option(choice));
  for (const group of item.option_groups ?? []) {
    const part = element("optgroup", "", ...group.options.map(option));
    part.label = group.label.text;
    node.append(part);
  }
  node.addEventListener("change", async () => {
    await world.act(block, item, node.value, node);
    node.value = item.initial_option?.value ?? "";
  });
  return node;
}

function overflow(block, item, world) {
  const list = element("div", "menu");
  const node = element("details", "overflow", element("summary", "button", "⋯"), list);
  for (const choice of item.options) {
    const row = element("button", "", choice.text.text);
    row.type = "button";
    row.addEventListener("click", () => {
      node.open = false;
      world.act(block, item, choice.value, node.firstChild);
    });
    list.append(row);
  }
  return node;
}

/** Only pictures of this workspace are shown; another address becomes a link. */
function addressOf(block) {
  if (block.slack_file?.id) return `/files/${encodeURIComponent(block.slack_file.id)}`;
  return localPath(block.slack_file?.url ?? block.image_url ?? "");
}

function localPath(address) {
  try {
    const url = new URL(address, location.href);
    return url.pathname.startsWith("/files/") ? url.pathname : url.href;
  } catch {
    return "";
  }
}

function picture(address, alt, title, world) {
  if (!address.startsWith("/files/")) return link(/^https?:/.test(address) ? address : "about:blank", alt || title || "picture");
  const image = element("img", "shot");
  image.src = address;
  image.alt = alt ?? "";
  image.addEventListener("click", () => world.enlarge(address, alt));
  const figure = element("figure", "", image);
  if (title) figure.prepend(element("figcaption", "", title));
  return figure;
}

function fileNode(file, world) {
  const address = localPath(file.url_private ?? "");
  if (file.mimetype?.startsWith("image/")) return picture(address, file.alt_txt || file.title, file.title, world);
  return element("div", "text", "📄 ", link(address, file.title || file.name));
}

function richText(item, world) {
  const parts = (item.elements ?? []).map((part) => {
    if (part.type === "text") {
      const tag = part.style?.code ? "code" : part.style?.bold ? "strong" : part.style?.italic ? "em" : "span";
      return element(tag, "", part.text);
    }
    if (part.type === "link" && /^https?:\/\//i.test(part.url)) return link(part.url, part.text ?? part.url);
    if (part.type === "user") return element("span", "mention", "@" + world.nameOf(part.user_id));
    return richText(part, world);
  });
  const tag = { rich_text_preformatted: "pre", rich_text_quote: "blockquote", rich_text_list: "ul" }[item.type] ?? "div";
  return element(tag, "", ...(tag === "ul" ? parts.map((part) => element("li", "", part)) : parts));
}
