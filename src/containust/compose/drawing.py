"""The CONNECT graph as DOT, Mermaid or SVG text: ``ctst plan --graph``."""

from __future__ import annotations

from containust.compose.graph import levels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.common.types import Component, Stack

FORMATS = ("dot", "mermaid", "svg")
BOX_HEIGHT = 44
LETTER = 8  # width of a character of the font below, in pixels
GAP_X = 28
GAP_Y = 56


def draw(stack: Stack, form: str) -> str:
    """The graph in one of :data:`FORMATS`. An arrow leads from a component to what it depends on."""
    return {"dot": dot, "mermaid": mermaid, "svg": svg}[form](stack)


def note(component: Component) -> str:
    """Ports of a component, as shown under its name."""
    return ", ".join(str(p.number) if p.protocol == "tcp" else f"{p.number}/udp" for p in component.ports)


def dot(stack: Stack) -> str:
    """For Graphviz."""
    lines = ["digraph stack {", "    rankdir = TB;", "    node [shape = box, style = rounded];"]
    for name, component in stack.components.items():
        label = f"{name}\\n{note(component)}" if component.ports else name
        lines.append(f'    "{name}" [label = "{label}"];')
    for name, component in stack.components.items():
        lines += [f'    "{name}" -> "{target}";' for target in component.depends_on]
    for i, expose in enumerate(stack.exposes):
        lines.append(f'    "host {i}" [label = "{published(expose.address)}:{expose.host_port}", shape = plain];')
        lines.append(f'    "host {i}" -> "{expose.component}" [style = dashed];')
    return "\n".join([*lines, "}"]) + "\n"


def published(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def mermaid(stack: Stack) -> str:
    """For Mermaid, whose identifiers are more restricted than names of components."""
    ids = {name: f"c{i}" for i, name in enumerate(stack.components)}
    lines = ["flowchart TD"]
    for name, component in stack.components.items():
        label = f"{name}<br/>{note(component)}" if component.ports else name
        lines.append(f'    {ids[name]}["{label}"]')
    for name, component in stack.components.items():
        lines += [f"    {ids[name]} --> {ids[target]}" for target in component.depends_on]
    for i, expose in enumerate(stack.exposes):
        lines.append(f'    h{i}(["{published(expose.address)}:{expose.host_port}"]) -.-> {ids[expose.component]}')
    return "\n".join(lines) + "\n"


def svg(stack: Stack) -> str:
    """A picture of its own: what starts last on top, each component above those it depends on."""
    rows = levels({name: component.depends_on for name, component in stack.components.items()})[::-1]
    shown = {name: note(component) for name, component in stack.components.items()}
    doors: dict[str, str] = {}  # addresses of the host that lead to a component
    for expose in stack.exposes:
        door = f"{published(expose.address)}:{expose.host_port}"
        doors[expose.component] = f"{doors[expose.component]}, {door}" if expose.component in doors else door
    wide = {name: max(len(name), len(shown[name]), len(doors.get(name, "")), 6) * LETTER + 24 for name in shown}
    row_widths = [sum(wide[name] + GAP_X for name in row) - GAP_X for row in rows]
    width = max(row_widths, default=0) + 2 * GAP_X
    height = len(rows) * (BOX_HEIGHT + GAP_Y) - GAP_Y + 2 * GAP_X if rows else 2 * GAP_X
    place: dict[str, tuple[int, int]] = {}
    for i, row in enumerate(rows):
        x = (width - row_widths[i]) // 2
        for name in row:
            place[name] = (x, GAP_X + i * (BOX_HEIGHT + GAP_Y))
            x += wide[name] + GAP_X
    box = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    tip = '<marker id="tip" markerWidth="9" markerHeight="8" refX="8" refY="4" orient="auto">'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} font-family="monospace" font-size="13">',
        f'<defs>{tip}<path d="M0,0 L9,4 L0,8 z" fill="#555"/></marker></defs>',
    ]
    for name, component in stack.components.items():
        x, y = place[name]
        for target in component.depends_on:
            other_x, other_y = place[target]
            start, middle = x + wide[name] // 2, y + BOX_HEIGHT
            lines.append(
                f'<path d="M{start},{middle} C{start},{middle + GAP_Y // 2} {other_x + wide[target] // 2},'
                f'{other_y - GAP_Y // 2} {other_x + wide[target] // 2},{other_y}" fill="none" stroke="#555" '
                'marker-end="url(#tip)"/>'
            )
    for name, (x, y) in place.items():
        size = f'width="{wide[name]}" height="{BOX_HEIGHT}"'
        lines.append(f'<rect x="{x}" y="{y}" {size} rx="6" fill="#eef3fb" stroke="#456"/>')
        at = f'x="{x + wide[name] // 2}" text-anchor="middle"'
        lines.append(f'<text {at} y="{y + (20 if shown[name] else 27)}">{name}</text>')
        if name in doors:
            lines.append(f'<text {at} y="{y - 6}" font-size="11" fill="#456">{doors[name]}</text>')
        if shown[name]:
            lines.append(f'<text {at} y="{y + 36}" font-size="11" fill="#456">{shown[name]}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"
