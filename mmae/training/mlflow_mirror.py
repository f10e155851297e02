"""Copies of a run's reports in MLflow, if it is installed and MLFLOW_TRACKING_URI names a server."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from catalogs import atomic

RUN_FILE = "mlflow.json"
EXPERIMENT = "mmae"
CLIENT_DEFAULTS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""Defaults of the client: training must not wait for a server that does not answer."""
Report = Callable[[str, int, dict[str, float]], None]


def open_mirror(run: Path, parameters: dict[str, object]) -> Report | None:
    """Return a function that reports (kind, step, values) to the MLflow run of a run directory.

    The MLflow run is created, with the parameters, or resumed together with the training. None where MLflow
    is not configured, not installed, or does not answer: training continues without it.
    """
    if "MLFLOW_TRACKING_URI" not in os.environ:
        return None
    for name, value in CLIENT_DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param
        from mlflow.exceptions import MlflowException
    except ImportError:
        print(
            "MLFLOW_TRACKING_URI is set, but MLflow is not there: pip install mlflow-skinny", file=sys.stderr
        )
        return None
    client = MlflowClient()
    try:
        if begun := atomic.read_sealed(run / RUN_FILE):
            run_id = client.get_run(begun["run_id"]).info.run_id
        else:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
            experiment = client.get_experiment_by_name(name)
            experiment_id = experiment.experiment_id if experiment else client.create_experiment(name)
            run_id = client.create_run(experiment_id, run_name=run.name).info.run_id
            client.log_batch(run_id, params=[Param(key, str(value)) for key, value in parameters.items()])
            atomic.write_json(run / RUN_FILE, atomic.sealed({"run_id": run_id}))
    except MlflowException as error:
        print(f"MLflow gets no reports: {str(error).splitlines()[0]}", file=sys.stderr)
        return None

    def report(kind: str, step: int, values: dict[str, float]) -> None:
        now = int(1000 * time.time())
        names = {f"{kind}/{name}".replace("|", "").replace(">", " above "): name for name in values}
        metrics = [Metric(key, values[name], now, step) for key, name in names.items()]
        client.log_batch(run_id, metrics, synchronous=False)

    return report
