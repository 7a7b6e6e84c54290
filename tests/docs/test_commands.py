"""Commands in the pages are accepted by the flag and config parsers of the commands themselves."""

import re
import shlex
import subprocess

from tests.support import pages
from tests.support.command_lines import parse_errors
from tests.support.commands import ROOT

# A placeholder that no parser can accept.
PLACEHOLDER = re.compile(r"…|=FILE\b|\.KEY=|--task=NAME|bertjax\.COMMAND|bertjax\.X\b")
COMMAND = re.compile(r"^python -m bertjax\.(\w+)(.*)$", re.MULTILINE)
INLINE = re.compile(r"`python -m bertjax\.(\w+)([^`]*)`")
LAUNCHED = re.compile(r"^bash launch/(?:local_pod\.sh \d+|\w+\.sh [^\n]*? --)( --config.*)$", re.MULTILINE)
BENCHMARK = re.compile(r"\bpython (benchmarks/\w+\.py)([^`\n]*)")


def commands_of(path) -> list[tuple[str, str, list[str]]]:
    """(where, module, arguments) of every bertjax command of a page."""
    found = []
    for block in pages.blocks(path):
        if block.language not in ("", "bash", "console", "shell"):
            continue
        text = block.text.replace("\\\n", " ")
        matches = [*COMMAND.finditer(text), *LAUNCHED.finditer(text)]
        for match in matches:
            module = match[1] if match.re is COMMAND else "train"
            found.append((block.where, module, match[match.re.groups]))
    for match in INLINE.finditer(pages.prose(path)):
        found.append((pages.name(path), match[1], match[2]))
    return [
        (where, module, shlex.split(words.replace("\n", " ")))
        for where, module, words in found
        if not PLACEHOLDER.search(f"bertjax.{module}{words}")
    ]


COMMANDS = [command for path in pages.PAGES for command in commands_of(path)]


def test_the_commands_of_all_pages_are_accepted():
    errors = parse_errors([(module, arguments) for _, module, arguments in COMMANDS])
    refused = [
        f"{where}: {module} {' '.join(arguments)}\n  {error}"
        for (where, module, arguments), error in zip(COMMANDS, errors, strict=True)
        if error
    ]
    assert not refused, "\n".join(refused)
    assert {module for _, module, _ in COMMANDS} == {path.stem for path in command_files()}
    assert len(COMMANDS) > 60


def command_files():
    return [path for path in (ROOT / "bertjax").glob("*.py") if "\n    cli.run(main" in path.read_text()]


WRONG = [
    ("train", ["--config=configs/tiny.py", "--config.optimizer.learning_rat=1"], "learning_rat"),
    ("train", ["--config=configs/tiny.py", "--config.phases=()"], "at least one phase"),
    ("finetune", ["--config=configs/glue.py:sst2", "--config.init_from=x", "--config.batch=0"], "config.batch"),
    ("predict", ["classify", "--checkpoints=x"], "checkpoints"),
    ("predict", ["clasify", "--checkpoint=x"], "clasify"),
    ("prepare", ["--output=x", "text:y"], "text:y"),
]


def test_wrong_commands_are_found_and_leave_the_next_ones_alone():
    right = ("train", ["--config=configs/tiny.py", "--config.seed=1"])
    lines = [line for module, arguments, _ in WRONG for line in ((module, arguments), right)]
    errors = parse_errors(lines)
    for (*line, message), error in zip(WRONG, errors[::2], strict=True):
        assert message in error, line
    assert errors[1::2] == [""] * len(WRONG)


def test_benchmarks_have_the_flags_that_pages_give_them():
    missing = []
    for path in pages.PAGES:
        for script, words in BENCHMARK.findall(path.read_text().replace("\\\n", " ")):
            source = (ROOT / script).read_text()
            flags = re.findall(r"(--[\w-]+)", words)
            missing += [f"{pages.name(path)}: {script} {flag}" for flag in flags if f'"{flag}"' not in source]
    assert not missing


def test_scripts_of_launch_that_pages_name_parse():
    scripts = {name for path in pages.PAGES for name in re.findall(r"\bbash (launch/\w+\.sh)", path.read_text())}
    assert scripts
    for script in scripts:
        result = subprocess.run(["bash", "-n", script], cwd=ROOT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
