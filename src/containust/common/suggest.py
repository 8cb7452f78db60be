"""The nearest name, for "did you mean". Imported only where a message is made."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST = 64  # longer names are never a typing error of one another


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The name at the smallest edit distance from ``word``, or None when none is near.

    Near means: equal but for case, or at most one edit for three letters (two up to six, three beyond).
    Of several at one distance the first wins.
    """
    if not word or len(word) > LONGEST:
        return None
    folded = word.lower().replace("_", "-")
    limit = 1 if len(word) <= 3 else 2 if len(word) <= 6 else 3
    best: str | None = None
    for name in names:
        if name == word:
            continue
        other = name.lower().replace("_", "-")
        if other == folded:
            return name
        if abs(len(other) - len(folded)) > limit or len(other) > LONGEST:
            continue
        distance = edit_distance(folded, other, limit)
        if distance <= limit and (distance < max(len(word), len(name)) - 1 or sorted(folded) == sorted(other)):
            best = name
            limit = distance - 1  # only a nearer one is better now
            if limit == 0:
                break
    return best


def edit_distance(left: str, right: str, limit: int) -> int:
    """Insertions, deletions, replacements and swaps of neighbours; ``limit + 1`` once ``limit`` is passed."""
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        before, previous, row = row, before, [i]
        for j, b in enumerate(right, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and b == left[i - 2]:
                cost = min(cost, previous[j - 2] + 1)
            row.append(cost)
        if min(row) > limit:
            return limit + 1
    return row[-1]
