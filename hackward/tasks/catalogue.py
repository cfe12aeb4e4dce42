"""All families of problems, easy ones first. Draws depend on the order, so it never changes."""

from __future__ import annotations

from hackward.tasks.families import Family
from hackward.tasks.families_easy import EASY
from hackward.tasks.families_hard_1 import HARD_1
from hackward.tasks.families_hard_2 import HARD_2
from hackward.tasks.families_medium import MEDIUM

FAMILIES: dict[str, Family] = {family.name: family for family in (*EASY, *MEDIUM, *HARD_1, *HARD_2)}

# Families that neither the pretraining corpus nor the RL problems contain.
HELD_OUT = (
    "firstIndex",
    "sumRemainders",
    "mergeTurns",
    "windowBest",
    "baseDigits",
    "longestChain",
    "fewestCoins",
    "sharedEnd",
)
