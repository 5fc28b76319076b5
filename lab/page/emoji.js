// Slack's shortcodes for the emoji that incident bots use; an unknown one stays as it was written.
export const EMOJI = {
  alarm_clock: "⏰", arrow_down: "⬇️", arrow_right: "➡️", arrow_up: "⬆️", arrows_counterclockwise: "🔄", bangbang: "‼️",
  bar_chart: "📊", bell: "🔔", black_circle: "⚫", blue_book: "📘", book: "📖", books: "📚", boom: "💥", bug: "🐛",
  bulb: "💡", calendar: "📆", chart_with_downwards_trend: "📉", chart_with_upwards_trend: "📈", clipboard: "📋",
  clock1: "🕐", construction: "🚧", detective: "🕵️", exclamation: "❗", eyes: "👀", fire: "🔥", fire_engine: "🚒",
  gear: "⚙️", green_circle: "🟢", grey_question: "❔", hammer_and_wrench: "🛠️", heavy_check_mark: "✔️", hourglass: "⌛",
  hourglass_flowing_sand: "⏳", information_source: "ℹ️", key: "🔑", large_blue_circle: "🔵", large_green_circle: "🟢",
  large_orange_circle: "🟠", large_yellow_circle: "🟡", leftwards_arrow_with_hook: "↩️", link: "🔗", lock: "🔒",
  mag: "🔍", mega: "📣", memo: "📝", microscope: "🔬", no_entry: "⛔", no_entry_sign: "🚫", ok: "🆗", orange_circle: "🟠",
  pager: "📟", pencil: "📝", pencil2: "✏️", pray: "🙏", pushpin: "📌", question: "❓", raised_hand: "✋", red_circle: "🔴",
  repeat: "🔁", robot_face: "🤖", rocket: "🚀", rotating_light: "🚨", satellite_antenna: "📡", scales: "⚖️", scroll: "📜",
  shield: "🛡️", small_red_triangle: "🔺", snail: "🐌", speech_balloon: "💬", stop_sign: "🛑", stopwatch: "⏱️", tada: "🎉",
  thermometer: "🌡️", "+1": "👍", "-1": "👎", thumbsdown: "👎", thumbsup: "👍", turtle: "🐢", unlock: "🔓", warning: "⚠️",
  wave: "👋", white_check_mark: "✅", white_circle: "⚪", wrench: "🔧", x: "❌", yellow_circle: "🟡", zap: "⚡",
};

// These are drawn by the style sheet, so that states have their colours on machines without an emoji font, too.
const DRAWN = {
  "🔴": "dot red", "🟠": "dot orange", "🟡": "dot yellow", "🟢": "dot green", "🔵": "dot blue", "⚪": "dot grey",
  "🔸": "diamond", "▫": "square", "❔": "sign question", "⚠": "sign warning", "✅": "sign tick", "❌": "sign cross",
};
const SIGNS = { "❔": "?", "⚠": "!", "✅": "✓", "❌": "✕" };
const FIND = new RegExp(`(${Object.keys(DRAWN).join("|")})\uFE0F?`, "u");

/** Text as nodes: the emoji that are drawn become spans, everything else stays text. */
export function withDrawnEmoji(text) {
  return text.split(FIND).flatMap((part, index) => {
    if (index % 2 === 0) return part ? [part] : [];
    const node = document.createElement("span");
    node.className = DRAWN[part];
    node.setAttribute("role", "img");
    node.setAttribute("aria-label", part);
    node.append(SIGNS[part] ?? "");
    return [node];
  });
}
