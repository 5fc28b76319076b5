"""`python -m lab serve ...`: the lab's own process, without the product's command line."""

from __future__ import annotations

from lab.commands import lab

if __name__ == "__main__":
    lab()
