"""Sends a step of the grid to Kubernetes as a Job, or says how far it is.

Snakemake calls it (config.yaml beside it): `job.py submit --image … SCRIPT`, `job.py status NAME`.
Snakemake's own Kubernetes executor passes files on through an object store;
a step here also keeps ledgers and a manifest in its folder, so all pods mount one volume instead.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from snakemake.utils import read_job_properties


def manifest(script: str, image: str, claim: str) -> dict[str, Any]:
    """Return the Job that runs a script of Snakemake's, with what its step asks for.

    Args:
        script: The script's path, on the volume.
        image: A container image with requirements.txt installed.
        claim: The persistent volume claim that holds the repository.
    """
    step = read_job_properties(script)
    asked = step["resources"]
    limits = {"memory": f"{asked['mem_mb']}Mi", "cpu": str(asked.get("cpus_per_task", 1))}
    if asked.get("gpu"):
        limits["nvidia.com/gpu"] = str(asked["gpu"])
    home = str(Path.cwd())
    container = {
        "name": "step", "image": image, "workingDir": home, "command": ["sh", script],
        "resources": {"requests": limits, "limits": limits},
        "volumeMounts": [{"name": "clca", "mountPath": home}],
    }  # fmt: skip
    pod = {
        "restartPolicy": "Never", "containers": [container],
        "volumes": [{"name": "clca", "persistentVolumeClaim": {"claimName": claim}}],
    }  # fmt: skip
    return {
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "generateName": f"clca-{step['rule'].replace('_', '-')}-", "labels": {"app": "clca"},
        },
        "spec": {
            "backoffLimit": 0,  # Snakemake tries again, with more memory and time
            "activeDeadlineSeconds": 60 * asked["runtime"],
            "ttlSecondsAfterFinished": 86400,
            "template": {"spec": pod},
        },
    }  # fmt: skip


def state(name: str, where: str) -> str:
    """Say how far a Job is; one of which the cluster tells nothing just now is taken to run."""
    call = subprocess.run(
        ["kubectl", "get", where, name, "-o", "json", "--ignore-not-found"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    if call.returncode:
        print(call.stderr, file=sys.stderr)
        return "running"
    if not call.stdout.strip():
        return "failed"  # somebody deleted it
    conditions = json.loads(call.stdout).get("status", {}).get("conditions", [])
    ended = {one["type"] for one in conditions if one["status"] == "True"}
    return "failed" if "Failed" in ended else "success" if "Complete" in ended else "running"


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("do", choices=["submit", "status"])
    parser.add_argument("--image", default="")
    parser.add_argument("--claim", default="")
    parser.add_argument("--namespace", required=True)
    parser.add_argument("what", help="a script, or the name of a Job")
    given = parser.parse_args()
    where = f"--namespace={given.namespace}"
    if given.do == "submit":
        job = json.dumps(manifest(given.what, given.image, given.claim))
        call = ["kubectl", "create", where, "-f", "-", "-o", "name"]
        subprocess.run(call, input=job, check=True, text=True)
    else:
        print(state(given.what, where))


if __name__ == "__main__":
    sys.exit(main())
