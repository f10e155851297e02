"""The reports of a run in MLflow too, where the package is there and MLFLOW_TRACKING_URI names a server."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from catalogs import atomic

RUN_FILE = "mlflow.json"
EXPERIMENT = "mmae"
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""What the user has not set: training does not wait for a server that does not answer."""
Report = Callable[[str, int, dict[str, float]], None]


def open_mirror(run: Path, parameters: dict[str, object]) -> Report | None:
    """A function that reports (kind, step, values) to the MLflow run of a run directory.

    The run is made where there is none yet, with the parameters, and taken up where the training is. None
    where MLflow is not asked for, not installed, or does not answer: it is a mirror, and training goes on.
    """
    if "MLFLOW_TRACKING_URI" not in os.environ:
        return None
    for name, value in PATIENCE.items():
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
        if (run / RUN_FILE).exists():
            run_id = client.get_run(json.loads((run / RUN_FILE).read_text())["run_id"]).info.run_id
        else:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
            experiment = client.get_experiment_by_name(name)
            number = experiment.experiment_id if experiment else client.create_experiment(name)
            run_id = client.create_run(number, run_name=run.name).info.run_id
            client.log_batch(run_id, params=[Param(key, str(value)) for key, value in parameters.items()])
            atomic.write_json(run / RUN_FILE, {"run_id": run_id})
    except MlflowException as error:
        print(f"MLflow gets no reports: {str(error).splitlines()[0]}", file=sys.stderr)
        return None

    def report(kind: str, step: int, values: dict[str, float]) -> None:
        now = int(1000 * time.time())
        names = {f"{kind}/{name}".replace("|", "").replace(">", " above "): name for name in values}
        metrics = [Metric(shown, values[name], now, step) for shown, name in names.items()]
        client.log_batch(run_id, metrics, synchronous=False)

    return report
