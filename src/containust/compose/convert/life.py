"""Health check, restart policy and end of a Compose service."""

from __future__ import annotations

from containust.compose.convert.items import as_list, escaped
from containust.compose.convert.part import Part
from containust.compose.quantities import parse_duration
from containust.compose.values import is_digits


class Life(Part):
    """How a container is watched, started again and stopped."""

    def healthcheck(self) -> None:
        item = self.take("healthcheck")
        if item is None:
            return
        known = ("test", "interval", "timeout", "retries", "start_period", "disable")
        entry = self.children(item, known, "healthcheck")
        test = entry.get("test")
        words = as_list(test) if test is not None else []
        kind = self.writer.plain(words[0]) if words and test is not None and isinstance(test.value, list) else ""
        kind = kind if kind in ("CMD", "CMD-SHELL", "NONE") else ""
        disabled = "disable" in entry and self.writer.plain(entry["disable"]) == "true"
        if disabled or kind == "NONE":
            self.lost("healthcheck", item, "the image's own healthcheck, if it has one, stays")
            return
        if test is None or test.value in (None, [], ""):
            self.lost("healthcheck", item, "it changes the image's, which only a whole one can")
            return
        if kind == "" and len(words) != 1:
            self.lost("healthcheck", item, "a test starts with CMD, CMD-SHELL or NONE")
            return
        if kind == "CMD":
            command = f"[{', '.join(self.writer.quoted(word) for word in words[1:])}]"
        elif kind == "CMD-SHELL":
            command = self.writer.quoted(words[1]) if len(words) > 1 else '""'
        else:
            command = self.writer.quoted(words[0])
        lines = [f"        command = {command}"]
        for key in ("interval", "timeout", "start_period"):
            if key in entry:
                text = duration_text(self.writer.fixed(entry[key]))
                if text and (key == "start_period" or text != "0s"):
                    lines.append(f'        {key} = "{text}"')
                elif not text:
                    self.lost(f"healthcheck.{key}", entry[key], "not a duration")
        if "retries" in entry:
            text = self.writer.fixed(entry["retries"])
            if is_digits(text) and len(text) < 7:
                lines.append(f"        retries = {max(1, int(text))}")
            else:
                self.lost("healthcheck.retries", entry["retries"], "not a number")
        why = self.writer.judge("healthcheck", "{\n" + "\n".join(lines) + "\n}")
        if why:
            self.lost("healthcheck", item, why)
            return
        self.lines += ["    healthcheck = {", *lines, "    }"]

    def endings(self) -> None:
        item = self.take("restart")
        if item is not None:
            text = self.writer.fixed(item)
            if text.startswith(("always", "unless-stopped", "on-failure")):
                self.put("restart", f'"{escaped(text.removesuffix(":0"))}"', item)
            elif text not in ("no", "false", ""):
                self.lost("restart", item)
        item = self.take("stop_signal")
        if item is not None:
            text = self.writer.fixed(item)
            if is_digits(text) and 0 < int(text[:3]) < 32:
                import signal

                text = signal.Signals(int(text)).name
            self.put("stop_signal", f'"{escaped(text)}"', item)
        item = self.take("stop_grace_period")
        if item is not None:
            text = duration_text(self.writer.fixed(item))
            if text:
                self.put("stop_timeout", f'"{text}"', item, "stop_grace_period")
            else:
                self.lost("stop_grace_period", item, "not a duration")


def duration_text(text: str) -> str:
    """A Compose duration as one of the language; empty for none."""
    text = text.strip()
    if parse_duration(text) is not None:
        return text
    for unit, factor in (("us", 1000), ("µs", 1000), ("ns", 1000000)):
        if text.endswith(unit) and text[: -len(unit)].isdigit():
            return f"{max(1, int(text[: -len(unit)]) // factor)}ms"
    return ""
