"""How results look: tables, colours, plans, errors."""

from __future__ import annotations

COLOURS = {
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
    "bold": "1",
}
NAME_COLOURS = ("36", "33", "32", "35", "34", "96", "93", "92", "95", "94")


def paint(text: str, colour: str, enabled: bool) -> str:
    """``text`` in a colour, when colours are on."""
    return f"\x1b[{COLOURS.get(colour, colour)}m{text}\x1b[0m" if enabled else text


def table(header: list[str], rows: list[list[str]]) -> str:
    """Columns padded to their widest cell, two spaces apart, one line a row with a newline each."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n"
        for row in [header, *rows]
    )


def size(count: int | None) -> str:
    """Bytes for people: ``1.5MiB``; ``-`` for None."""
    if count is None:
        return "-"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f}{unit}" if unit == "B" else f"{value:.1f}{unit}"
        value /= 1024
    return f"{value:.1f}TiB"


def safe(text: str) -> str:
    """``text`` with control characters shown instead of acted on."""
    return "".join(c if c.isprintable() or c == "\t" else ascii(c)[1:-1] for c in text)


def error(code: str, message: str, help: list[str], colour: bool, output: tuple[str, list[str]] = ("", [])) -> str:
    """An error as it goes to standard error; ``output`` is a container's name and its last lines."""
    head = paint(f"error[{code}]", "31;1", colour)
    lines = [f"{head}: {message}\n"]
    lines += [f"  {paint(f'{output[0]} |', NAME_COLOURS[0], colour)} {safe(line)}\n" for line in output[1]]
    lines += [f"  {paint('help', 'cyan', colour)}: {line}\n" for line in help]
    return "".join(lines)
