"""The manifests of a Ray cluster: what of them can be checked without one."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from yamllint import linter
from yamllint.config import YamlLintConfig

from dermalert.cli import commands

FOLDER = Path(__file__).resolve().parents[1] / "deploy" / "ray"
RULES = YamlLintConfig("{extends: default, rules: {line-length: {max: 120}, document-start: disable}}")
KUBERNETES = "1.33"

# What KubeRay's types of RayJob and RayCluster, ray.io/v1, take (ray-operator/apis/ray/v1 in its repository). Its own
# schema is not at hand here: a field that it would refuse deeper down, it refuses on the cluster.
_JOB = {"backoffLimit", "entrypoint", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec"}
_CLUSTER = {"rayVersion", "authOptions", "enableInTreeAutoscaling", "headGroupSpec", "workerGroupSpecs"}
_HEAD = {"rayStartParams", "template"}
_WORKERS = _HEAD | {"groupName", "replicas", "minReplicas", "maxReplicas"}


def documents() -> dict[str, dict[str, Any]]:
    found = yaml.safe_load_all((FOLDER / "kuberay.yaml").read_text(encoding="utf-8"))
    return {f"{each['kind']} {each['metadata']['name']}": each for each in found}


def groups() -> list[dict[str, Any]]:
    cluster = documents()["RayJob dermalert-score"]["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


@pytest.mark.parametrize("name", ["cluster.yaml", "kuberay.yaml"])
def test_the_manifests_are_plain_yaml(name: str) -> None:
    assert [str(problem) for problem in linter.run((FOLDER / name).read_text(encoding="utf-8"), RULES)] == []


def test_ray_takes_the_cluster_of_our_own_machines() -> None:
    schema = json.loads((resources.files("ray.autoscaler") / "ray-schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(yaml.safe_load((FOLDER / "cluster.yaml").read_text(encoding="utf-8")), schema)


@pytest.mark.parametrize(
    "name", ["PersistentVolumeClaim dermalert-pictures", "PersistentVolumeClaim dermalert-findings"]
)
def test_kubernetes_takes_the_claims(name: str) -> None:
    kubernetes_validate.validate(documents()[name], KUBERNETES, strict=True)


@pytest.mark.parametrize("group", groups(), ids=lambda group: group.get("groupName", "head"))
def test_kubernetes_takes_the_pods_of_each_group(group: dict[str, Any]) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, **group["template"]}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_the_job_has_the_fields_of_kuberay() -> None:
    job = documents()["RayJob dermalert-score"]
    assert (job["apiVersion"], set(job["spec"])) == ("ray.io/v1", _JOB)
    assert set(job["spec"]["rayClusterSpec"]) == _CLUSTER
    head, *workers = groups()
    assert set(head) == _HEAD
    assert all(set(group) == _WORKERS for group in workers)


def test_every_pod_sees_the_pictures_and_the_findings_at_the_same_paths() -> None:
    mounts = [container["volumeMounts"] for g in groups() for container in g["template"]["spec"]["containers"]]
    assert all(each == mounts[0] for each in mounts)


def test_the_entrypoint_is_a_command_that_there_is() -> None:
    program, command, *arguments = shlex.split(documents()["RayJob dermalert-score"]["spec"]["entrypoint"])
    assert program == "dermalert"
    whole = commands.make_context("dermalert", ["--help"], resilient_parsing=True)  # a command keeps what help it had
    context = commands.commands[command].make_context(command, arguments, parent=whole)
    assert (context.params["engine"], context.params["address"]) == ("ray", "auto")


def test_the_image_passes_its_linter() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, FOLDER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0)
