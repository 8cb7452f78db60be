"""``ctst completion``: scripts for shells, and ``ctst __complete``, which they ask at each press of Tab."""

from __future__ import annotations

from containust.cli.arguments import parse
from containust.common.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.cli.main import Context

HELP = """Usage: ctst completion bash|zsh|fish

Print a script that completes commands, options and the names of containers and images.

Examples:
  ctst completion bash > /etc/bash_completion.d/ctst
  ctst completion zsh > "${fpath[1]}/_ctst"
  ctst completion fish > ~/.config/fish/completions/ctst.fish
"""
# The scripts only ask: every answer line is a word, a tab and what it means. No answer means: complete file names.
BASH = """\
_ctst() {
    local IFS=$'\\n' cur="${COMP_LINE:0:COMP_POINT}"
    # Bash takes words apart at colons; the references of images have some.
    local -a words=()
    IFS=$' \\t\\n' read -r -a words <<< "$cur"
    case $cur in *[[:space:]]) words+=('') ;; esac
    local last="${words[${#words[@]}-1]}"
    COMPREPLY=($(ctst __complete "${words[@]:1}" 2>/dev/null | cut -f 1))
    if [[ $last == *:* && $COMP_WORDBREAKS == *:* ]]; then
        local prefix="${last%"${last##*:}"}"
        COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
    fi
}
complete -o default -F _ctst ctst
"""
ZSH = """\
#compdef ctst
_ctst() {
    local -a answers
    answers=("${(@f)$(ctst __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    answers=("${(@)answers:#}")
    if (( ! ${#answers} )); then
        _files
        return
    fi
    local -a names described
    local answer
    for answer in "${answers[@]}"; do
        names+=("${answer%%$'\\t'*}")
        described+=("${answer//$'\\t'/  -- }")
    done
    compadd -l -d described -- "${names[@]}"
}
if [ "$funcstack[1]" = _ctst ]; then _ctst "$@"; else compdef _ctst ctst; fi
"""
FISH = """\
function __ctst_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l answers (ctst __complete $words[2..-1] 2>/dev/null)
    if test (count $answers) -gt 0
        printf '%s\\n' $answers
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c ctst -f -a '(__ctst_complete)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}

CONTAINERS = ("exec", "inspect", "logs", "restart", "rm", "start", "stop")
IMAGES = ("push", "save")
# Options whose values are no file names.
VALUES = {
    "--backend": ("auto", "linux", "vm"),
    "--log-level": ("error", "warning", "info", "debug"),
}


def run(words: list[str], context: Context) -> int:
    """The command ``completion``."""
    given = parse(words, {})
    if given.flag("help"):
        context.out(HELP)
        return 0
    if len(given.positional) != 1 or given.positional[0] not in SCRIPTS:
        raise UsageError("completion takes the name of a shell", f"one of {', '.join(SCRIPTS)}")
    context.out(SCRIPTS[given.positional[0]])
    return 0


def complete(words: list[str], context: Context) -> int:
    """The hidden command ``__complete WORD...``: print what the last word may become, one a line.

    ``words`` are those after ``ctst`` up to the cursor. A line is a word, or a word, a tab and its meaning. Nothing
    is printed where a file name is wanted or nothing fits. Never fails: whoever presses Tab wants no error.
    """
    try:
        for word, meaning in candidates(words, context):
            if word.startswith(words[-1] if words else "") and word.isprintable():
                context.out(f"{word}\t{meaning}\n" if meaning else f"{word}\n")
    except Exception:
        return 0
    return 0


def candidates(words: list[str], context: Context) -> list[tuple[str, str]]:
    """(word, meaning) of everything that may stand where the last word stands."""
    from containust.cli.arguments import FLAG, GLOBAL, GLOBAL_SHORT
    from containust.cli.main import COMMANDS

    options = {**GLOBAL, **GLOBAL_SHORT}
    current = words[-1] if words else ""
    command = ""
    after: list[str] = []
    position = 0
    while position < len(words) - 1:
        word = words[position]
        position += 1
        if word in options and options[word][1] != FLAG:
            if position >= len(words) - 1:
                return [(value, "") for value in VALUES.get(word, ())]
            if word == "-C":
                context.cwd = words[position]
            elif word == "--state-file":
                context.state_file = words[position]
            position += 1
        elif not command and not word.startswith("-"):
            command = word
        elif command:
            after.append(word)
    if not command:
        if current.startswith("-"):
            return [(name, "") for name in sorted(options)]
        return sorted(COMMANDS.items())
    if command not in COMMANDS or "--" in after:
        return []
    if current.startswith("-"):
        return [(name, "") for name in _options(command)]
    if after and after[-1] == "--image":
        return _images(context)
    return _arguments(command, after, context)


def _arguments(command: str, after: list[str], context: Context) -> list[tuple[str, str]]:
    plain = [word for word in after if not word.startswith("-")]
    if command in CONTAINERS:
        if command == "exec" and plain:
            return []
        from containust.sdk.project import Project

        names = Project.current(context.cwd, state_file=context.state_file).names()
        return [(name, "") for name in sorted(names) if name not in plain]
    if command in IMAGES and not (command == "push" and plain):
        return _images(context)
    if command == "images":
        return _images(context) if after else []
    if command == "explain":
        from containust.sdk.language import codes

        return list(codes().items())
    if command == "completion" and not plain:
        return [(name, "") for name in SCRIPTS]
    return []


def _images(context: Context) -> list[tuple[str, str]]:
    from containust.sdk.images import Images

    rows = Images.current(context.cwd, state_file=context.state_file).ls()
    return [(reference, "") for reference in sorted({str(row["reference"]) for row in rows})]


def _options(command: str) -> list[str]:
    """A command's options, read from its own help so that there is one list of them."""
    import contextlib
    import io

    from containust.cli.main import Context
    from containust.cli.main import command as load

    captured = io.StringIO()

    class Silent(Context):
        def out(self, text: str) -> None:
            captured.write(text)

    with contextlib.redirect_stdout(captured), contextlib.suppress(SystemExit):
        load(command)(["--help"], Silent())
    found = set()
    for line in captured.getvalue().splitlines():
        # The usage lines and the list of options; not the examples.
        if line.lstrip().startswith("-") or line.lower().startswith("usage") or line.startswith("       "):
            words = line.strip().partition("  ")[0] if line.lstrip().startswith("-") else line
            for word in words.replace("[", " ").replace("]", " ").replace("|", " ").replace(",", " ").split():
                name = word.partition("=")[0]
                if name.startswith("--") and len(name) > 2 and name[2:].replace("-", "").isalnum():
                    found.add(name)
    return sorted({*found, "--help"})
