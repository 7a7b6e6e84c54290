"""The launchers of pods and clusters: they run the commands of their dry run and recover from failures.

Fakes of gcloud, sbatch, srun and kubectl record their calls; a shell runs the commands for a worker in a folder that
serves as its home directory. See stand_in.sh.
"""

import contextlib
import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.support.commands import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers of a pod run Linux")

PROGRAMS = ("gcloud", "sbatch", "srun", "scancel", "scontrol", "kubectl", "python3")
# Other programs that the scripts use; a real gcloud must not be on PATH.
TOOLS = "bash basename cat cksum cp dirname flock git grep gzip head mkdir mktemp rm sed setsid sleep tail tar touch tr"
TOOLS += " true wc"
PLACE = ("--project=p", "--zone=us-west4-a")
SLICE = (*PLACE, "--accelerator-type=v5litepod-256", "--poll=0")
GKE = ("--image=i", "--accelerator=tpu-v5-lite-podslice", "--topology=16x16")
QUOTA = ["ERROR: (gcloud) RESOURCE_EXHAUSTED: quota of chips is used up", "- its details"]
# With characters that are special in a shell, ssh or YAML.
TRAIN = (
    "--config=configs/large.py",
    '--config.phases=({"steps":60,"length":64,"batch":16},)',
    "--workdir=it's $(HOME) &",
    "",
)


class Cluster:
    """A checkout of bertjax to launch from, and a cluster of fake programs."""

    def __init__(self, folder: Path):
        self.folder, self.checkout = folder / "stand_ins", folder / "checkout"
        self.started: list[subprocess.Popen] = []
        self.folder.mkdir()
        for name in PROGRAMS:
            shutil.copy(ROOT / "tests/launch/stand_in.sh", self.folder / name)
            (self.folder / name).chmod(0o755)
        (folder / "tools").mkdir()
        for name in TOOLS.split():
            (folder / "tools" / name).symlink_to(shutil.which(name))
        self.play(states=["ACTIVE"], plays=["finish"])
        shutil.copytree(ROOT / "launch", self.checkout / "launch")
        for name in ("setup.py", "pyproject.toml", ".gitignore"):
            shutil.copy(ROOT / name, self.checkout)
        git = ["git", "-c", "user.name=n", "-c", "user.email=e"]
        for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message=m"]):
            subprocess.run([*git, *words], cwd=self.checkout, check=True)
        self.environment = {
            "PATH": f"{self.folder}:{folder / 'tools'}",
            "HOME": str(folder),
            "STAND_INS": str(self.folder),
            "SLURM_JOB_ID": "7",
            "SLURM_CPUS_PER_TASK": "8",
        }

    def play(self, **answers: list[str]) -> None:
        """Sets the results of the fake programs, one per call; the last one repeats."""
        for name, lines in answers.items():
            (self.folder / name).write_text("".join(f"{line}\n" for line in lines))

    def start(self, script: str, *arguments: str) -> subprocess.Popen:
        """Starts a script of launch/."""
        process = subprocess.Popen(
            ["/bin/bash", f"launch/{script}", *arguments],
            cwd=self.checkout,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess:
        """Runs a script of launch/ until it ends."""
        process = self.start(script, *arguments)
        output, errors = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def calls(self, *programs: str) -> list[list[str]]:
        """The calls of these programs to date."""
        path = self.folder / "calls"
        lines = path.read_text().split("\0\n")[:-1] if path.exists() else []
        return [words for words in (line.split("\0") for line in lines) if words[0] in programs]

    def trained(self) -> list[list[str]]:
        """The flags of each start of bertjax.train to date."""
        return [words[3:] for words in self.calls("python", "python3") if words[1:3] == ["-m", "bertjax.train"]]

    def training(self) -> list[int]:
        """The ids of the fake training processes that wait for a signal."""
        path = self.folder / "training"
        return list(map(int, path.read_text().split())) if path.exists() else []

    def close(self) -> None:
        """Kills the processes that a failed test has left running."""
        for process in self.started:
            process.kill()
        for process in self.training():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def cluster(tmp_path):
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.close()


def printed(result: subprocess.CompletedProcess, program: str) -> list[list[str]]:
    """The calls of a program in the output of a dry run."""
    assert result.returncode == 0, result.stderr
    lines = [shlex.split(line) for line in result.stdout.splitlines() if line.startswith(f"{program} ")]
    return [list(itertools.takewhile(lambda word: word != "<<", words)) for words in lines]


def assert_one_error(result: subprocess.CompletedProcess, *parts: str) -> None:
    assert result.returncode == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and errors[0] == result.stderr.splitlines()[-1], result.stderr
    for part in parts:
        assert part in errors[0]


def test_tpu_runs_make_the_calls_of_the_dry_run(cluster):
    """The script requests a slice, waits for it, and copies code and flags to all workers unchanged."""
    arguments = ("run", *SLICE, "--spot", "--setup=touch mounted", "--", *TRAIN)
    dry = cluster.run("tpu_pod.sh", "--dry-run", *arguments)
    assert cluster.calls(*PROGRAMS) == []
    assert not (cluster.checkout / "dist").exists()

    cluster.play(states=["NOT_FOUND", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"])
    result = cluster.run("tpu_pod.sh", *arguments)
    assert result.returncode == 0, result.stderr
    without_repeats = [words for words, _ in itertools.groupby(cluster.calls("gcloud"))]
    assert without_repeats == printed(dry, "gcloud")
    assert cluster.trained() == [list(TRAIN)] * 2
    assert "wrote all there is" in result.stdout
    for worker in ("worker0", "worker1"):
        assert (cluster.folder / worker / "mounted").exists()


def test_preempted_tpu_runs_continue_on_a_new_slice(cluster):
    """A preempted slice is deleted and requested again, and the same command runs there."""
    cluster.play(states=["ACTIVE", "SUSPENDED", "NOT_FOUND", "ACTIVE"])
    cluster.play(plays=["lose", "lose", "finish"])  # the two workers of the preempted slice, then the new slice
    result = cluster.run("tpu_pod.sh", "run", *SLICE, "--", *TRAIN)
    assert result.returncode == 0, result.stderr
    verbs = [words[4] for words in cluster.calls("gcloud") if words[3] == "queued-resources" and words[4] != "describe"]
    assert verbs == ["delete", "create"]
    assert cluster.trained() == [list(TRAIN)] * 4


def test_tpu_runs_survive_a_lost_connection_until_stop(cluster):
    """The run is independent of the connection; stop saves on all workers and ends run and script."""
    cluster.play(plays=["wait"], lost=[""])
    watching = cluster.start("tpu_pod.sh", "run", *SLICE, "--", *TRAIN)
    follows = ["--worker=0", "--command=bash bertjax/launch/worker.sh follow"]
    wait_until(lambda: sum(words[-2:] == follows for words in cluster.calls("gcloud")) == 2)
    wait_until(lambda: len(cluster.training()) == 2)
    stopping = cluster.run("tpu_pod.sh", "stop", *PLACE)
    assert stopping.returncode == 0, stopping.stderr
    output, errors = watching.communicate(timeout=30)
    assert watching.returncode == 0 and "the run was stopped" in errors, errors
    assert "stopped at step 5" in output
    assert len(cluster.trained()) == 2


def test_tpu_runs_restart_after_a_signal_other_than_stop(cluster):
    """SIGTERM on a worker, as before maintenance, does not end a run with remaining steps."""
    cluster.play(plays=["wait", "wait", "finish"])
    watching = cluster.start("tpu_pod.sh", "run", *SLICE, "--", *TRAIN)
    wait_until(lambda: len(cluster.training()) == 2)
    for process in cluster.training():
        os.kill(process, signal.SIGTERM)
    _, errors = watching.communicate(timeout=30)
    assert watching.returncode == 0 and "all steps are done" in errors, errors
    assert len(cluster.trained()) == 4


@pytest.mark.parametrize(
    ("script", "arguments", "answers", "parts"),
    [
        ("tpu_pod.sh", ["run", "--project=p", "--zone=z", "--", "--a"], {}, ["--accelerator-type: flag missing"]),
        ("tpu_pod.sh", ["run", *SLICE, "--spott", "--", "--a"], {}, ["--spott: unknown flag"]),
        ("tpu_pod.sh", ["run", *SLICE], {}, ["bertjax.train are missing"]),
        ("tpu_pod.sh", ["run", *SLICE, "--", "--a"], {"states": ["NOT_FOUND"], "quota": QUOTA}, [QUOTA[0]]),
        ("tpu_pod.sh", ["run", *SLICE, "--", "--a"], {"states": ["NOT_FOUND", "FAILED"]}, ["was refused"]),
        ("tpu_pod.sh", ["run", *SLICE, "--", "--a"], {"plays": ["refuse"]}, ["the error above", "delete"]),
        ("tpu_pod.sh", ["run", *SLICE, "--", "--a"], {"plays": ["lose"]}, ["gave up after 3 failures"]),
        ("slurm.sh", ["--gpus=many", "--time=1:00", "--", "--a"], {}, ["--gpus=many: expected a positive integer"]),
        ("kubernetes.sh", ["apply", *GKE, "--topology=16", "--", "--a"], {}, ["--topology=16: expected a topology"]),
    ],
)
def test_failures_end_in_a_one_line_error(cluster, script, arguments, answers, parts):
    cluster.play(**answers)
    assert_one_error(cluster.run(script, *arguments), *parts)


@pytest.mark.parametrize(
    ("script", "arguments"),
    [("tpu_pod.sh", ["run", *SLICE]), ("slurm.sh", ["--time=1:00"]), ("kubernetes.sh", ["apply", *GKE])],
)
def test_missing_programs_are_named(cluster, script, arguments):
    for name in PROGRAMS:
        (cluster.folder / name).unlink()
    assert_one_error(cluster.run(script, *arguments, "--", "--a"), "is not installed", "https://")


def test_slurm_jobs_are_submitted_as_in_the_dry_run(cluster):
    arguments = ("--nodes=4", "--gpus=8", "--time=24:00:00", "--partition=a100", "--", *TRAIN)
    dry = cluster.run("slurm.sh", "--dry-run", *arguments)
    assert cluster.calls(*PROGRAMS) == []
    assert cluster.run("slurm.sh", *arguments).returncode == 0
    assert cluster.calls("sbatch") == printed(dry, "sbatch")
    [submitted] = cluster.calls("sbatch")
    assert submitted[-len(TRAIN) - 1 :] == [str(cluster.checkout / "launch/slurm_job.sh"), *TRAIN]
    assert {"--nodes=4", "--ntasks-per-node=8", "--gpus-per-node=8"} < set(submitted)


def test_slurm_jobs_save_and_requeue_before_their_time_limit(cluster):
    """A job that has finished all steps is not requeued."""
    assert cluster.run("slurm.sh", "--time=1:00", "--", *TRAIN).returncode == 0  # creates .venv
    cluster.play(plays=["wait", "finish"])
    job = cluster.start("slurm_job.sh", *TRAIN)
    wait_until(cluster.training)
    job.send_signal(signal.SIGUSR1)
    output, errors = job.communicate(timeout=30)
    assert job.returncode == 0 and "stopped at step 5" in output, errors
    assert cluster.calls("scontrol") == [["scontrol", "requeue", "7"]]
    assert cluster.run("slurm_job.sh", *TRAIN).returncode == 0
    assert len(cluster.calls("scontrol")) == 1
    assert cluster.trained() == [list(TRAIN)] * 2


def test_manifests_request_all_hosts_of_the_slice(cluster):
    """kubectl receives the manifest of the dry run: one pod per host, with unchanged flags."""
    arguments = ("apply", *GKE, "--spot", "--claim=c", "--", *TRAIN)
    dry = cluster.run("kubernetes.sh", "--dry-run", *arguments)
    assert cluster.calls(*PROGRAMS) == []
    assert cluster.run("kubernetes.sh", *arguments).returncode == 0
    assert cluster.calls("kubectl") == printed(dry, "kubectl")
    manifest = (cluster.folder / "manifest").read_text()
    assert manifest in dry.stdout
    job = yaml.safe_load(manifest)["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["parallelism"] == job["completions"] == 64 and job["backoffLimit"] == 0
    pod = job["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    [container] = pod["containers"]
    assert [word.replace("$$(", "$(") for word in container["args"]] == list(TRAIN)
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert [mount["name"] for mount in container["volumeMounts"]] == [volume["name"] for volume in pod["volumes"]]


def test_terminated_pods_do_not_count_as_finished(cluster):
    """At SIGTERM the container saves and exits with another code than after a finished run."""
    cluster.environment["PYTHON"] = "python3"
    assert cluster.run("worker.sh", "run", *TRAIN).returncode == 0
    cluster.play(plays=["wait"])
    container = cluster.start("worker.sh", "run", *TRAIN)
    wait_until(cluster.training)
    container.send_signal(signal.SIGTERM)
    output, _ = container.communicate(timeout=30)
    assert container.returncode == 75 and "stopped at step 5" in output
    cluster.play(plays=["refuse"])
    assert cluster.run("worker.sh", "run", *TRAIN).returncode == 2
    assert cluster.trained() == [list(TRAIN)] * 3


def test_commands_of_the_guides_are_valid(cluster):
    """Every launcher's command in the how-to guides, with a dry run."""
    guides = [(ROOT / f"docs/how-to/{name}.md").read_text() for name in ("tpu-pods", "slurm", "kubernetes")]
    guide = "".join(guides).replace("\\\n", " ")
    commands = re.findall(r"^bash (launch/(?:tpu_pod|slurm|kubernetes)\.sh .*)$", guide, re.MULTILINE)
    assert {re.match(r"launch/(\w+)", line)[1] for line in commands} == {"tpu_pod", "slurm", "kubernetes"}
    script = "\n".join(["set -e", *re.findall(r"^export .*$", guide, re.MULTILINE)])
    for line in commands:
        name, arguments = line.split(" ", 1)
        script += f"\nbash {name} --dry-run {arguments}"
    result = subprocess.run(
        ["/bin/bash", "-c", script], cwd=ROOT, env=cluster.environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0 and result.stdout, result.stderr
