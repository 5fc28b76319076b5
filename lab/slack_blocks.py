"""
What Slack accepts as the blocks of a message, and where the buttons in them are.

The limits are those of docs.slack.dev/reference/block-kit (read in November 2026). Only what a message may hold is
known here; any other block or element is refused, as Slack refuses a misspelt one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MAX_BLOCKS = 50
MAX_BLOCKS_BYTES = 100_000

_PROPERTIES = {
    "section": {"text", "fields", "accessory", "expand"},
    "header": {"text"},
    "context": {"elements"},
    "actions": {"elements"},
    "divider": set(),
    "image": {"image_url", "slack_file", "alt_text", "title"},
    "markdown": {"text"},
    "rich_text": {"elements"},
    "button": {"text", "action_id", "value", "url", "style", "confirm", "accessibility_label"},
    "static_select": {"action_id", "placeholder", "options", "option_groups", "initial_option", "confirm"},
    "overflow": {"action_id", "options", "confirm"},
}
_INTERACTIVE = {"button", "static_select", "overflow"}
_RICH_TEXT = {"rich_text_section", "rich_text_preformatted", "rich_text_list", "rich_text_quote"}


def faults_in(blocks: object) -> list[str]:
    """Every fault in these blocks, as Slack words them with a JSON pointer; empty when Slack would take them."""
    if not isinstance(blocks, list):
        return ["must be an array [json-pointer:/blocks]"]
    check = _Check()
    if not 1 <= len(blocks) <= MAX_BLOCKS:
        check.fault("/blocks", f"must have 1 to {MAX_BLOCKS} items, has {len(blocks)}")
    for index, block in enumerate(blocks):
        check.block(block, f"/blocks/{index}")
    return check.faults


def interactive_elements(blocks: object) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Each (block, element) that people can click or choose from."""
    for block in blocks if isinstance(blocks, list) else []:
        candidates = list(block.get("elements", [])) if block.get("type") == "actions" else []
        if block.get("type") == "section" and "accessory" in block:
            candidates.append(block["accessory"])
        for element in candidates:
            if element.get("type") in _INTERACTIVE:
                yield block, element


def options_of(element: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The options of a menu, those in groups included."""
    grouped = [option for group in element.get("option_groups", []) for option in group["options"]]
    return [*element.get("options", []), *grouped]


class _Check:
    """Walks one message's blocks and gathers faults."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._block_ids: set[str] = set()

    def fault(self, pointer: str, message: str) -> None:
        self.faults.append(f"[ERROR] {message} [json-pointer:{pointer}]")

    def block(self, block: object, at: str) -> None:
        if not isinstance(block, dict):
            self.fault(at, "must be an object")
            return
        kind = block.get("type")
        checks = {
            "section": self._section,
            "header": self._header,
            "context": self._context,
            "actions": self._actions,
            "divider": lambda _block, _at: None,
            "image": self._image,
            "markdown": self._markdown,
            "rich_text": self._rich_text,
        }
        if kind not in checks:
            self.fault(f"{at}/type", f"unsupported type: {kind}")
            return
        self._known_properties(block, at, extra={"block_id"})
        self._block_id(block, at)
        checks[kind](block, at)

    def _block_id(self, block: Mapping[str, Any], at: str) -> None:
        if "block_id" not in block:
            return
        self._string(block["block_id"], f"{at}/block_id", 255)
        if block["block_id"] in self._block_ids:
            self.fault(f"{at}/block_id", f"duplicate block_id: {block['block_id']}")
        self._block_ids.add(str(block["block_id"]))

    def _known_properties(self, thing: Mapping[str, Any], at: str, extra: set[str]) -> None:
        known = _PROPERTIES[thing["type"]] | extra | {"type"}
        for name in thing:
            if name not in known:
                self.fault(at, f"invalid additional property: {name}")

    def _string(self, value: object, at: str, limit: int) -> None:
        if not isinstance(value, str):
            self.fault(at, "must be a string")
        elif not value:
            self.fault(at, "must be more than 0 characters")
        elif len(value) > limit:
            self.fault(at, f"must be less than {limit + 1} characters")

    def _text(self, value: object, at: str, limit: int, *, plain: bool = False) -> None:
        if not isinstance(value, dict):
            self.fault(at, "must be a text object")
            return
        kinds = {"plain_text": {"type", "text", "emoji"}}
        if not plain:
            kinds["mrkdwn"] = {"type", "text", "verbatim"}
        if value.get("type") not in kinds:
            self.fault(f"{at}/type", f"unsupported text type: {value.get('type')}")
            return
        for name in value.keys() - kinds[value["type"]]:
            self.fault(at, f"invalid additional property: {name}")
        self._string(value.get("text"), f"{at}/text", limit)

    def _section(self, block: Mapping[str, Any], at: str) -> None:
        if not ({"text", "fields"} & block.keys()):
            self.fault(at, "must have at least one of: text, fields")
        if "text" in block:
            self._text(block["text"], f"{at}/text", 3000)
        for index, field in enumerate(self._items(block, "fields", at, most=10)):
            self._text(field, f"{at}/fields/{index}", 2000)
        if "accessory" in block:
            self._element(block["accessory"], f"{at}/accessory", allowed=_INTERACTIVE | {"image"})

    def _header(self, block: Mapping[str, Any], at: str) -> None:
        self._text(block.get("text"), f"{at}/text", 150, plain=True)

    def _context(self, block: Mapping[str, Any], at: str) -> None:
        for index, element in enumerate(self._items(block, "elements", at, most=10, needed=True)):
            if isinstance(element, dict) and element.get("type") == "image":
                self._element(element, f"{at}/elements/{index}", allowed={"image"})
            else:
                self._text(element, f"{at}/elements/{index}", 3000)

    def _actions(self, block: Mapping[str, Any], at: str) -> None:
        elements = self._items(block, "elements", at, most=25, needed=True)
        for index, element in enumerate(elements):
            self._element(element, f"{at}/elements/{index}", allowed=_INTERACTIVE)
        ids = [str(e["action_id"]) for e in elements if isinstance(e, dict) and e.get("action_id")]
        for repeated in sorted({i for i in ids if ids.count(i) > 1}):
            self.fault(f"{at}/elements", f"duplicate action_id: {repeated}")

    def _image(self, block: Mapping[str, Any], at: str) -> None:
        self._string(block.get("alt_text"), f"{at}/alt_text", 2000)
        if ("image_url" in block) == ("slack_file" in block):
            self.fault(at, "must have exactly one of: image_url, slack_file")
        if "image_url" in block:
            self._string(block["image_url"], f"{at}/image_url", 3000)
        if "title" in block:
            self._text(block["title"], f"{at}/title", 2000, plain=True)

    def _markdown(self, block: Mapping[str, Any], at: str) -> None:
        self._string(block.get("text"), f"{at}/text", 12_000)

    def _rich_text(self, block: Mapping[str, Any], at: str) -> None:
        for index, element in enumerate(self._items(block, "elements", at, most=100, needed=True)):
            if not isinstance(element, dict) or element.get("type") not in _RICH_TEXT:
                self.fault(f"{at}/elements/{index}", "unsupported rich text element")

    def _items(self, thing: Mapping[str, Any], name: str, at: str, *, most: int, needed: bool = False) -> list[Any]:
        if name not in thing:
            if needed:
                self.fault(at, f"missing required field: {name}")
            return []
        items = thing[name]
        if not isinstance(items, list):
            self.fault(f"{at}/{name}", "must be an array")
            return []
        if not 1 <= len(items) <= most:
            self.fault(f"{at}/{name}", f"must have 1 to {most} items, has {len(items)}")
        return items

    def _element(self, element: object, at: str, *, allowed: set[str]) -> None:
        if not isinstance(element, dict) or element.get("type") not in allowed:
            kind = element.get("type") if isinstance(element, dict) else "not an object"
            self.fault(at, f"unsupported element: {kind}")
            return
        self._known_properties(element, at, extra=set())
        if element["type"] == "image":
            self._image(element, at)
            return
        if "action_id" in element:
            self._string(element["action_id"], f"{at}/action_id", 255)
        if "confirm" in element:
            self._confirm(element["confirm"], f"{at}/confirm")
        if element["type"] == "button":
            self._button(element, at)
        else:
            self._menu(element, at)

    def _button(self, button: Mapping[str, Any], at: str) -> None:
        self._text(button.get("text"), f"{at}/text", 75, plain=True)
        if "value" in button:
            self._string(button["value"], f"{at}/value", 2000)
        if "url" in button:
            self._string(button["url"], f"{at}/url", 3000)
        if button.get("style", "primary") not in {"primary", "danger"}:
            self.fault(f"{at}/style", "must be one of: primary, danger")

    def _menu(self, menu: Mapping[str, Any], at: str) -> None:
        if menu["type"] == "static_select" and "placeholder" in menu:
            self._text(menu["placeholder"], f"{at}/placeholder", 150, plain=True)
        if menu["type"] == "static_select" and ("options" in menu) == ("option_groups" in menu):
            self.fault(at, "must have exactly one of: options, option_groups")
        most = 100 if menu["type"] == "static_select" else 5
        for index, option in enumerate(self._items(menu, "options", at, most=most, needed=menu["type"] == "overflow")):
            self._option(option, f"{at}/options/{index}")
        for index, group in enumerate(self._items(menu, "option_groups", at, most=100)):
            where = f"{at}/option_groups/{index}"
            self._text(group.get("label"), f"{where}/label", 75, plain=True)
            for number, option in enumerate(self._items(group, "options", where, most=100, needed=True)):
                self._option(option, f"{where}/options/{number}")

    def _option(self, option: object, at: str) -> None:
        if not isinstance(option, dict):
            self.fault(at, "must be an object")
            return
        self._text(option.get("text"), f"{at}/text", 75)
        self._string(option.get("value"), f"{at}/value", 150)
        if "description" in option:
            self._text(option["description"], f"{at}/description", 75)

    def _confirm(self, dialog: object, at: str) -> None:
        if not isinstance(dialog, dict):
            self.fault(at, "must be an object")
            return
        self._text(dialog.get("title"), f"{at}/title", 100, plain=True)
        self._text(dialog.get("text"), f"{at}/text", 300)
        self._text(dialog.get("confirm"), f"{at}/confirm", 30, plain=True)
        self._text(dialog.get("deny"), f"{at}/deny", 30, plain=True)
