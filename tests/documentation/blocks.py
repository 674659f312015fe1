"""A page's blocks, read from its Markdown and run one after the other in one folder, as a reader would run them.

| block | what is done with it |
|---|---|
| `python` | run; all of a page share one namespace |
| `bash` | every command is run and must end well |
| `console` | the same, and what stands below a `$ command` must be what it prints, its error where it fails |
| `text`, `json` | what the block above it printed |
| `toml`, or any with `title="NAME"` | parsed; written to the file NAME in the page's folder |
| `diff` | made by `python -m benchmarks tables` from programs that have tests of their own |

`...` stands for any text, a run of blanks for any other. Comments of Markdown, which no reader sees:
`<!-- setup` runs Python, `<!-- slow -->` puts the page into `make test-slow`, `<!-- not run: REASON -->` has the
options of the next block's commands looked up in their `--help` instead.
"""

import contextlib
import doctest
import io
import linecache
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.programs import Program, ran

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w-]*)(?: *title=\"(?P<title>[^\"]+)\")?\n(?P<body>.*?)^(?P=indent)```$"
    r"|^ *<!-- (?P<word>setup|slow|not run:|diff|/diff)(?P<rest>.*?) ?-->$",
    re.MULTILINE | re.DOTALL,
)
CHECKER = doctest.OutputChecker()
LIKE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
TARGETS = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@dataclass(frozen=True)
class Block:
    """A fenced block, or a comment: its language or word, its text, the file that it shows, its line in the page."""

    kind: str
    body: str
    title: str | None
    line: int


def blocks(page: Path) -> list[Block]:
    """Every block of a page, in its order."""
    text = page.read_text()
    found = []
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        if match["word"]:
            found.append(Block(f"<!-- {match['word']}", match["rest"], None, line))
            continue
        body = "".join(part.removeprefix(match["indent"]) for part in match["body"].splitlines(keepends=True))
        found.append(Block(match["language"], body, match["title"], line))
    return found


@dataclass
class Reader:
    """Runs a page's blocks in `folder`; raises AssertionError with the block's place where something differs."""

    page: Path
    folder: Path
    module: ModuleType = field(default_factory=lambda: ModuleType("page"))
    printed: str | None = None
    before: str = ""
    done: int = 0
    asked: bool = False
    """Whether the next block's commands are looked up instead of being run."""
    said: list[str] = field(default_factory=list)
    """What the block's commands printed, for who must find out why a later one went wrong."""
    patience: float = 300.0
    """Seconds for a command; more on a page that says of itself that it is slow."""

    def read(self) -> int:
        """Run every block in turn; return how many were read."""
        sys.modules["page"] = self.module  # where records and pickles look for the names of a page
        for block in blocks(self.page):
            try:
                self._take(block)
            except BaseException as error:
                error.add_note(f"{self.page.relative_to(ROOT)}, line {block.line}:\n{block.body}")
                error.add_note("\n".join(["its commands printed:", *self.said]))
                raise
            self.before = block.kind
            self.done += 1
        return self.done

    def _take(self, block: Block) -> None:
        self.said.clear()
        if block.kind == "<!-- not run:":
            assert block.body.strip(), "say why it is not run"
        elif block.kind == "<!-- slow":
            self.patience = 1800.0
        elif block.kind == "<!-- setup":
            self._python(block)
        elif block.title:
            self._write(block)
        elif block.kind in ("python", "bash", "console"):
            self.printed = getattr(self, f"_{block.kind}")(block)
        elif block.kind in ("text", "json"):
            same(block.body, self.printed)
        elif block.kind == "toml":
            tomllib.loads(block.body)
        elif block.kind == "diff":
            assert self.before == "<!-- diff", "a diff is made from programs: see benchmarks/diffs.py"
        else:
            assert block.kind.startswith("<!--"), f"nobody runs a block of {block.kind or 'no language'}"
        self.asked = block.kind == "<!-- not run:"

    def _write(self, block: Block) -> None:
        assert block.title
        if block.title.endswith(".toml"):
            tomllib.loads(block.body)
        target = self.folder / block.title
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(block.body)

    def _python(self, block: Block) -> str:
        name = f"{self.page.name}:{block.line}"
        linecache.cache[name] = (len(block.body), None, block.body.splitlines(keepends=True), name)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(block.body, name, "exec"), vars(self.module))
        return out.getvalue()

    def _bash(self, block: Block) -> str:
        return "".join(self._command(line, expected=None) for line in lines(block.body))

    def _console(self, block: Block) -> str:
        for part in re.split(r"^\$ ", block.body, flags=re.MULTILINE)[1:]:
            command = next(lines(part))
            self._command(command, part[len(command) :].strip() or None)
        return ""

    def _command(self, line: str, expected: str | None) -> str:
        said = ""
        words = shlex.split(line.replace("\\\n", " "), comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            code, out, err = self._ask(words[:end]) if self.asked else self._run(words[:end])
            said += out if code == 0 else out + err
            assert code == 0 or expected, f"{line} ended with {code}: {out}{err}"
            words = words[end + 1 :]
        self.said.append(f"$ {line}\n{said[-4000:]}")
        if expected is not None:
            same(expected, said)
        return said

    def _run(self, words: list[str]) -> tuple[int, str, str]:
        match words:
            case [*command, ">", file]:
                code, out, err = self._run(command)
                (self.folder / file).write_text(out)
                return code, "", err
            case ["cd", folder]:
                self.folder = (self.folder / folder).resolve()
                return 0, "", ""
            case ["make", *targets]:
                return int(not set(targets) <= set(TARGETS)), "", f"no such target: {targets}"
            case ["pip", "install", package]:
                extras = set(filter(None, package.removeprefix("secagg-toolkit").strip("[]").split(",")))
                return int(not extras <= set(EXTRAS)), "", f"no such extra: {extras}"
            case ["secagg", *arguments]:
                done = ran("fl.cli", *arguments, folder=self.folder, seconds=self.patience)
            case ["python", "-m", module, *arguments]:
                done = ran(module, *arguments, folder=self.folder, seconds=self.patience)
            case ["python", file, *arguments]:
                done = ran(self.folder / file, *arguments, folder=self.folder, seconds=self.patience)
            case _:
                done = subprocess.run(words, cwd=self.folder, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def _ask(self, words: list[str]) -> tuple[int, str, str]:
        """Whether a command that takes too long, or too much, knows every option that the page gives it."""
        if words[0] in ("make", "pip"):
            return self._run(words)
        known = help_of(tuple(commanded(words)))
        unknown = [word for word in words if re.match(r"--\w", word) and word.partition("=")[0] not in known]
        return int(bool(unknown)), "", f"options that {words} does not have: {unknown}"


def commanded(words: list[str]) -> list[str]:
    """The command and its sub-commands, without options and what they are given."""
    end = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
    return words[: min(end, {"secagg": 3, "python": 5, "flwr": 2}.get(words[0], 1))]


@cache
def help_of(words: tuple[str, ...]) -> str:
    """What a command says of itself."""
    if words[0] in ("secagg", "python"):
        module, arguments = ("fl.cli", words[1:]) if words[0] == "secagg" else (words[2], words[3:])
        wide = {"COLUMNS": "250"}  # so that no option is cut
        return Program(module, *arguments, "--help", folder=ROOT, environment=wide).end().stdout
    return subprocess.run([*words, "--help"], capture_output=True, text=True, check=True).stdout


def lines(script: str) -> Any:
    """The commands of a script, a backslash at a line's end taken with the next line."""
    return (found for found in re.findall(r"(?:.*\\\n)*.+", script) if not found.lstrip().startswith("#"))


def same(expected: str, got: str | None) -> None:
    """Raise AssertionError where a program printed other words than a page says."""
    assert got is not None, "no program stands above this output; a drawing belongs in a picture"
    if not CHECKER.check_output(expected, got, LIKE):
        raise AssertionError(f"the page says:\n{expected}\nthe program printed:\n{got}")
