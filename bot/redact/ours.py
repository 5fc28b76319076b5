"""
Our own rules for credentials: what stands in headers, addresses, options and behind names, and tokens of this field.

They prefer a lost harmless word ("password: written") over a leaked secret. Quotes stay, so JSON stays JSON.
"""

from __future__ import annotations

import re

REDACTED = "[redacted]"

_PLAIN_VALUE = r"""[^\s"'\\<>\[\](){}*$%,;&`|]"""
_QUOTED_VALUE = r"""\\?"[^"\\\n]+|\\?'[^'\\\n]+"""
_ASSIGN = r"""(?:\\?["'])?\s{0,3}(?::=|=>|[:=])\s{0,3}"""

# Text comes from strangers, so every rule takes linear time: what a rule may read before it knows that it matches is
# bounded. Only its last repetition has no bound, since it swallows what it reads; a bound there would show the rest
# of a long secret.

# Fixed prefixes that vendors chose so that scanners can find their tokens; the lengths are theirs or shorter.
# The lookahead of first letters makes the search ten times faster.
_TOKENS = re.compile(
    r"\b(?=[xgAyshrnSpdefNk0-9])(?:"
    r"xwfp-[\w-]{8,}|https://hooks\.slack\.com/(?:services|workflows|triggers)/[\w/+-]+"
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|gl(?:pat|ptt|dt|rt|cbt|ft|agent|soat)-[\w-]{16,}"
    r"|(?:ASIA|ABIA|ACCA)[0-9A-Z]{16}\b|AIza[\w-]{35}|ya29\.[\w-]{20,}"
    r"|sk-[A-Za-z0-9_-]{16,}|[rs]k_(?:live|test)_[A-Za-z0-9]{10,}|hf_[A-Za-z0-9]{20,}|nvapi-[\w-]{20,}"
    r"|gsk_[A-Za-z0-9]{20,}|r8_[A-Za-z0-9]{20,}|SG\.[\w-]{16,128}+\.[\w-]{16,}|npm_[A-Za-z0-9]{30,}"
    r"|pypi-[\w-]{16,}|dapi[a-f0-9]{32}\b|do[opr]_v1_[a-f0-9]{64}|hv[sbr]\.[\w-]{20,}|gl(?:sa|c)_[\w=]{20,}"
    r"|xai-[A-Za-z0-9]{40,}|fw_[A-Za-z0-9]{20,}|pat[A-Za-z0-9]{14}\.[a-f0-9]{64}"
    r"|NRAK-[A-Z0-9]{27}|key-[0-9a-f]{32}\b|[0-9]{8,10}:AA[\w-]{32,}"
    r"|pdus\+[\w+-]{16,}|eyJ[\w-]{8,4096}+\.[\w-]{8,}(?:\.[\w-]*)?)"
)
# So distinctive that they count in the middle of a word, too.
_TOKENS_ANYWHERE = re.compile(r"xox[a-z]-[\w-]{8,}|xapp-[\w-]{8,}|AKIA[0-9A-Z]{16}|wk[os]_[\w-]{43}")
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?"
    r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)",
    re.DOTALL,
)
_PAGERDUTY_HEADER = re.compile(r"(?i)\btoken\s{1,16}token=\S+")
_AUTHORIZATION = re.compile(
    r"""(?i)((?:proxy-)?authorization(?:\\?["'])?\s{0,3}[:=]\s{0,3}(?:\\?["'])?(?:(?:bearer|basic|token|digest)\s{1,16})?)"""
    r"""(?!bearer\b|basic\b|token\b|digest\b|[$<{])[^\s"'\\\[]{6,}"""
)
_BEARER = re.compile(r"\b((?i:bearer|basic)\s{1,16})(?=[A-Za-z._~+/=-]{0,512}+[0-9])[A-Za-z0-9._~+/=-]{12,}")
_COOKIES = re.compile(
    r"""(?i)\b((?:set-)?cookie(?:\\?["'])?\s{0,3}[:=]\s{0,3}(?:\\?["'])?)(?=[\w.-]{1,64}=)[^"'\r\n\[]+"""
)
_NETRC = re.compile(r"(?i)\b(login\s{1,3}\S{1,128}\s{1,3}password\s{1,3})(?!\[)\S+")
_IS_SECRET = re.compile(r"""(?i)\bkind\\?["']?:\s{0,3}\\?["']?secret\b""")
_SECRET_DATA = re.compile(r"(?m)^([ \t+-]{0,40})(?:stringData|data):[ \t]*\n((?:\1[ \t]+[^\n]*\n?)+)")
_SECRET_VALUE = re.compile(r"(?m)^([ \t+-]{0,60}[\w.-]{1,253}:[ \t]{1,8})(?!\[redacted\]|[|>]-?$)\S.*$")
_URL_PASSWORD = re.compile(r"(?i)\b([a-z][a-z0-9+.-]{1,20}://)[^\s/@:\"'<>]{0,128}:[^\s/\"'<>]{1,256}@")
_PASSWORDS = re.compile(
    rf"(?i)((?:password|passwd|passphrase|pwd|secret){_ASSIGN})({_QUOTED_VALUE}|{_PLAIN_VALUE}{{4,}})"
)
_KEYS = re.compile(  # a key has a digit and eight characters: "token: expired" stays readable
    r"(?i)((?:api[_-]?key|access[_-]?key(?:[_-]?id)?|account[_-]?key|secret[_-]?key|signing[_-]?key|routing[_-]?key"
    r"|private[_-]?key|credentials?|token|sig(?:nature)?)"
    rf"{_ASSIGN})((?=[^\s,;&0-9]{{0,512}}+[0-9])(?:{_QUOTED_VALUE}|{_PLAIN_VALUE}{{8,}}))"
)
_FLAGS = re.compile(
    r"(?i)(--(?:[\w-]{0,20}-)?(?:api-?key|token|password|passwd|secret|access-key|secret-key)(?:=|\s{1,3}))"
    r"(?![<$\[{-])[^\s\"'<>\[]{4,}"
)


def hide(text: str) -> str:
    """The text with what our rules find replaced by "[redacted]"."""
    text = _PRIVATE_KEY.sub(REDACTED, text)
    text = _TOKENS_ANYWHERE.sub(REDACTED, text)
    text = _TOKENS.sub(REDACTED, text)
    text = _PAGERDUTY_HEADER.sub(REDACTED, text)
    text = _AUTHORIZATION.sub(rf"\1{REDACTED}", text)
    text = _BEARER.sub(rf"\1{REDACTED}", text)
    text = _COOKIES.sub(rf"\1{REDACTED}", text)
    text = _NETRC.sub(rf"\1{REDACTED}", text)
    if _IS_SECRET.search(text):
        text = _SECRET_DATA.sub(lambda data: _SECRET_VALUE.sub(rf"\1{REDACTED}", data.group()), text)
    text = _URL_PASSWORD.sub(rf"\1{REDACTED}@", text)
    text = _FLAGS.sub(rf"\1{REDACTED}", text)
    text = _PASSWORDS.sub(_hide_value, text)
    return _KEYS.sub(_hide_value, text)


def _hide_value(match: re.Match[str]) -> str:
    value = match.group(2)
    quote = re.match(r"""\\?["']""", value)
    return match.group(1) + (quote.group() if quote else "") + REDACTED
